"""What one look at every value of two samples leaves: the values that differ, if they are few, or counts in bins."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ks_lottery.errors import UnitError
from ks_lottery.stats.floats import FORMATS, FloatBits, format_of
from ks_lottery.stats.matrix_kernels import BLOCK, TAKEN, WIDTH, WIDTH_BITS, kernels

Bits = NDArray[Any]

BINS = 2**18
_UPPER_BITS = 14
_KEPT_BYTES = 2**23
_SAMPLE = 2**17


@dataclass(frozen=True)
class KeyBins:
    """Bins of unequal width over the order-preserving keys of a dtype.

    The keys are first cut by their upper bits. `cut` cuts some of the bins into powers of two and closes the others, so
    that a key finds its bin with one look-up per cut. Behind the last bin there is one more for all that was closed.

    Attributes:
        integer: numpy name of the signed integer that holds a key.
        width_bits: [bins] int64; a bin holds 2**width_bits keys.
        origin: [bins] int64, the bin of upper bits that each is a part of.
        table: [entries] uint32, for every bin before each cut, the closed one included: the place of its first part,
            and how wide its parts are as an exponent of two. A part's place is that of its own entry; after the last
            cut, places go on.
        depth: number of cuts.
    """

    integer: str
    width_bits: NDArray[np.int64]
    origin: NDArray[np.int64]
    table: NDArray[np.uint32]
    depth: int

    @classmethod
    def of_upper_bits(cls, integer: str) -> "KeyBins":
        """One bin for each key of 16 bits, or else 2**14 bins of equal width."""
        key_bits = np.iinfo(integer).bits
        kept = 16 if key_bits == 16 else _UPPER_BITS
        return cls(integer, np.full(2**kept, key_bits - kept), np.arange(2**kept), np.empty(0, dtype=np.uint32), 0)

    def __len__(self) -> int:
        return len(self.width_bits)

    def cut(
        self, index: NDArray[np.int64], sizes: NDArray[np.int64], parts: int
    ) -> tuple["KeyBins", NDArray[np.int64]]:
        """Cut some bins, so that the values in them spread about evenly over the parts, and close the others.

        Args:
            index: [k] int64, ascending: which bins.
            sizes: [k] values in each of them.
            parts: number of parts to make, beyond one for each bin.

        Returns:
            The parts, and [k] int64 the first part of each bin that was cut.
        """
        share = np.maximum(sizes * (parts / sizes.sum()), 1)
        part_bits = np.minimum(np.log2(share).astype(np.int64), self.width_bits[index])
        width_bits = self.width_bits[index] - part_bits
        ends = np.cumsum(1 << part_bits)
        first = ends - (1 << part_bits)
        place = np.full(len(self) + 1, ends[-1])
        width = np.full(len(self) + 1, WIDTH, dtype=np.int64)
        place[index], width[index] = first, width_bits
        entries = (place + len(self.table) + len(place)) << int(WIDTH_BITS) | width
        table = np.concatenate((self.table, entries.astype(np.uint32)))
        bits, origin = (np.repeat(some, 1 << part_bits) for some in (width_bits, self.origin[index]))
        return KeyBins(self.integer, bits, origin, table, self.depth + 1), first

    @cached_property
    def placement(self) -> tuple[Any, ...]:
        """What loops take to find a value's bin: every bit but the sign, number of lower bits, table, depth."""
        shift = 0 if self.integer == "int16" else np.iinfo(self.integer).bits - _UPPER_BITS
        return np.int64(np.iinfo(self.integer).max), np.uint64(shift), self.table, self.depth

    def upper_bits(self, index: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[2**14] whether a value with these upper bits, as a signed integer, may fall into one of some bins.

        Keys of positive values are their bits. Those of negative ones run downwards, from one bin into the next.
        """
        present = np.zeros(2**_UPPER_BITS, dtype=np.bool_)
        present[self.origin[index]] = True
        negative, positive = present[: len(present) // 2 + 1], present[len(present) // 2 :]
        return np.concatenate(((negative[1:] | negative[:-1])[::-1], positive))

    def sift(self, values: Bits, others: Bits | None, upper_bits: NDArray[np.bool_]) -> Bits:
        """A copy of those values that have certain upper bits and, if there are others, differ from them."""
        kept = np.empty(len(values), dtype=values.dtype)
        paired = others is not None
        shift = self.placement[1]
        return kept[: kernels().sift(values, others if paired else values, paired, upper_bits, shift, kept)]


@dataclass(frozen=True)
class OpenBins:
    """Some bins, and what is known of them.

    Attributes:
        bins: all bins.
        index: [k] int64, ascending: which of them.
        base: [k] weighted difference of the two samples' counts below each of them.
        counts: [2, k] int64, how many values of each sample they hold.
    """

    bins: KeyBins
    index: NDArray[np.int64]
    base: NDArray[Any]
    counts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, which: Any) -> "OpenBins":
        return OpenBins(self.bins, self.index[which], self.base[which], self.counts[:, which])

    @property
    def sizes(self) -> NDArray[np.int64]:
        """[k] values in each bin."""
        return self.counts.sum(axis=0)

    def runs(self, limit: int) -> list["OpenBins"]:
        """Neighbours that together hold less values than `limit` and one bin."""
        sizes = self.sizes
        borders = np.flatnonzero(np.diff((np.cumsum(sizes) - sizes) // limit)) + 1
        return [self[start:stop] for start, stop in itertools.pairwise([0, *borders, len(self)])]

    def picker(self) -> Callable[[Bits, Bits | None], Bits]:
        """A function that takes values and others, as `BinCounts.count`, and returns the keys that fall into these."""
        upper_bits = self.bins.upper_bits(self.index)
        wanted = np.zeros(len(self.bins) + 1, dtype=np.bool_)
        wanted[self.index] = True

        def pick(values: Bits, others: Bits | None) -> Bits:
            sifted = self.bins.sift(values, others, upper_bits)
            return sifted[: kernels().pick(sifted, *self.bins.placement, wanted)]

        return pick


class BinCounts:
    """How many values of two samples fall into each bin; any number of threads may count at once.

    A thread counts in a table of its own, of which an entry holds the first sample's count in its lower 16 bits and the
    second's in its upper 16; of a count that reaches 2**15, so many are taken to an array that all threads share.

    Args:
        bins: where to count.

    Cost:
        16 bytes per bin, and 4 bytes per bin and thread.
    """

    def __init__(self, bins: KeyBins) -> None:
        self.bins = bins
        self._upper_bits = bins.upper_bits(np.arange(len(bins))) if bins.depth > 1 else None
        self._taken = np.zeros((2, len(bins) + 1), dtype=np.int64)
        self._tables: list[NDArray[np.uint32]] = []
        self._free: list[NDArray[np.uint32]] = []
        self._lock = Lock()

    def count(self, values: Bits, others: Bits | None, side: int) -> None:
        """Count at most `BLOCK` values.

        Args:
            values: [k] bits.
            others: [k] bits of the other sample; values that equal theirs bit by bit are left out. None counts all, and
                so does a bin for each key, where equal values cancel.
            side: 0 for the first sample, 1 for the second.
        """
        with self._lock:
            if not self._free:
                self._free.append(np.zeros(len(self.bins) + 1, dtype=np.uint32))
                self._tables.append(self._free[-1])
            table = self._free.pop()
        if self._upper_bits is not None:
            values, others = self.bins.sift(values, others, self._upper_bits), None
        paired = others is not None
        step, full = np.uint32(1 << 16 * side), np.empty(len(values), dtype=np.int64)
        if self.bins.depth:
            pair = values, others if paired else values, paired
            found = kernels().count(*pair, *self.bins.placement, table, step, full)
        else:
            found = kernels().count_uncut(values, *self.bins.placement[:2], table, step, full)
        with self._lock:
            self._free.append(table)
            if found:
                np.add.at(self._taken[side], full[:found], TAKEN)

    def peak(self, x_step: int, y_step: int) -> int:
        """Largest absolute height at the edges of bins, when no thread is counting.

        Args:
            x_step: by how much a value of the first sample raises the height.
            y_step: by how much a value of the second lowers it.
        """
        if not self._tables:
            return 0
        return int(kernels().peak(self._taken, np.stack(self._tables), x_step, y_step))

    def totals(self) -> NDArray[np.int64]:
        """[2, bins] the two samples' counts, when no thread is counting."""
        totals = self._taken[:, :-1].copy()
        for table in self._tables:
            totals[0] += table[:-1] & np.uint32(0xFFFF)
            totals[1] += table[:-1] >> np.uint32(16)
        return totals


class Intake:
    """Sees every value of two samples once; any number of threads may add at once.

    Args:
        dtype: of both samples, a key of `FORMATS`.
        name: what they are, for error messages.

    Attributes:
        integer: numpy dtype of the values' bits.
        kept: of both samples, the values that differ, in blocks, as long as `counts` is None.
        counts: of the values that differ; at once for 16 bits, else when more than 8 MiB are kept.
    """

    def __init__(self, dtype: str, name: str) -> None:
        self.dtype, self.name = dtype, name
        self.integer = np.dtype(format_of(dtype, name).integer)
        self.kept: tuple[list[Bits], list[Bits]] = ([], [])
        self.counts: BinCounts | None = None
        self._kept_values = 0
        self._exponent = self.integer.type(FORMATS[dtype].exponent)
        self._lock = Lock()
        if self.integer.itemsize == 2:
            self.counts = BinCounts(KeyBins.of_upper_bits(self.integer.name))

    def add(self, before: Bits | None, after: Bits | None, start: int) -> None:
        """Take a part of one sample or, if values at the same place belong together, of both.

        Args:
            before: [k] bits, or None.
            after: [k] bits, or None.
            start: flat position of the part, for error messages.

        Raises:
            UnitError: if a value is NaN or infinite.
        """
        for x, y, offset in blocks(before, after):
            differing, exponent = kernels().screen(y if x is None else x, x if y is None else y, self._exponent)
            if exponent == self._exponent:
                self._refuse(x, y, start + offset)
            if differing or x is None or y is None:
                self._take(x, y, 0)
                self._take(y, x, 1)

    def _take(self, values: Bits | None, others: Bits | None, side: int) -> None:
        if values is None or (self.counts is None and self._keep(values, others, side)):
            return
        assert self.counts is not None
        self.counts.count(values, others, side)

    def _refuse(self, before: Bits | None, after: Bits | None, start: int) -> None:
        for side, bits in (("before", before), ("after", after)):
            if bits is not None and not (finite := FloatBits(bits, self.dtype).finite()).all():
                raise UnitError(
                    f"{self.name!r} {side} holds NaN or an infinite value at flat position {start + finite.argmin()}. "
                    "Leave it out, or use a checkpoint whose training did not diverge."
                )

    def _keep(self, values: Bits, others: Bits | None, side: int) -> bool:
        """Keep what differs, unless it is counted by now."""
        values = values if others is None else values[values != others]
        with self._lock:
            if self.counts is None:
                self.kept[side].append(values)
                self._kept_values += len(values)
                if self._kept_values * self.integer.itemsize > _KEPT_BYTES:
                    self._use_bins()
                return True
        return False

    def _use_bins(self) -> None:
        """Choose bins by a sample of what was kept, and count that."""
        step = self._kept_values // _SAMPLE + 1
        bins = KeyBins.of_upper_bits(self.integer.name)
        sample = BinCounts(bins)
        for values in itertools.chain(*self.kept):
            sample.count(values[::step], None, 0)
        counts = BinCounts(bins.cut(np.arange(len(bins)), sample.totals()[0], BINS)[0])
        for side, kept in enumerate(self.kept):
            for values in kept:
                counts.count(values, None, side)
            kept.clear()
        self.counts = counts


def blocks(before: Bits | None, after: Bits | None) -> Iterator[tuple[Bits | None, Bits | None, int]]:
    """Parts of at most `BLOCK` places of one or two samples, and the first place of each."""
    size = max(0 if side is None else len(side) for side in (before, after))
    for start in range(0, size, BLOCK):
        x, y = (None if side is None else side[start : start + BLOCK] for side in (before, after))
        yield x, y, start
