"""Bins over the order-preserving keys of floats, and the counts of two samples in them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ks_lottery.stats.jit import can_compile, kernel

Integers = NDArray[Any]

BLOCK = 2**15  # values that a kernel takes at once: 16 bits hold a count below 2**15, and all of them
_PREFIX_BITS = 14
_FULL = 2**15
_WIDTH_BITS, _WIDTH = np.uint32(6), np.uint32(63)
_CLOSED = np.uint32(2**32 - 1)


@dataclass(frozen=True)
class KeyBins:
    """Bins of unequal width over the keys of a dtype.

    The keys are first cut by their upper bits. `cut` cuts some of the bins into powers of two and closes the others, so
    that a key finds its bin with one look-up per cut.

    Attributes:
        integer: numpy name of the signed integer that holds a key.
        width_bits: [bins] int64; a bin holds 2**width_bits keys.
        table: [entries] uint32, for every bin before each cut: the place of its first part, and how wide its parts are
            as an exponent of two. A part's place is that of its own entry; after the last cut, places go on.
        depth: number of cuts.
    """

    integer: str
    width_bits: NDArray[np.int64]
    table: NDArray[np.uint32]
    depth: int

    @classmethod
    def of_upper_bits(cls, integer: str) -> "KeyBins":
        """One bin for each key of 16 bits, or else 2**14 bins of equal width."""
        key_bits = np.iinfo(integer).bits
        kept = 16 if key_bits == 16 else _PREFIX_BITS
        return cls(integer, np.full(2**kept, key_bits - kept), np.empty(0, dtype=np.uint32), 0)

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
        first = np.cumsum(1 << part_bits) - (1 << part_bits)
        entries = np.full(len(self), _CLOSED)
        entries[index] = (first + len(self.table) + len(self)) << int(_WIDTH_BITS) | width_bits
        table = np.concatenate((self.table, entries))
        return KeyBins(self.integer, np.repeat(width_bits, 1 << part_bits), table, self.depth + 1), first


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
        return [self[start:stop] for start, stop in pairwise([0, *borders, len(self)])]


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
        self._emptied = np.zeros((2, len(bins)), dtype=np.int64)
        self._tables: list[NDArray[np.uint32]] = []
        self._free: list[NDArray[np.uint32]] = []
        self._lock = Lock()

    def count(self, values: Integers, others: Integers | None, side: int) -> None:
        """Count at most `BLOCK` values.

        Args:
            values: [k] bits.
            others: [k] bits of the other sample; values that equal theirs bit by bit are left out. None counts all.
            side: 0 for the first sample, 1 for the second.
        """
        with self._lock:
            if not self._free:
                self._tables.append(np.zeros(len(self.bins), dtype=np.uint32))
                self._free.append(self._tables[-1])
            table = self._free.pop()
        full = np.empty(len(values), dtype=np.int64)
        found = kernels().count(*_arguments(self.bins, values, others), table, np.uint32(16 * side), full)
        with self._lock:
            self._free.append(table)
            np.add.at(self._emptied[side], full[:found], _FULL)

    def totals(self) -> NDArray[np.int64]:
        """[2, bins] the two samples' counts, when no thread is counting."""
        totals = self._emptied.copy()
        for table in self._tables:
            totals[0] += table & np.uint32(0xFFFF)
            totals[1] += table >> np.uint32(16)
        return totals


def keys_in(bins: KeyBins, wanted: NDArray[np.bool_], values: Integers, others: Integers | None) -> Integers:
    """Keys of those values that fall into a wanted bin, in the order of the values; arguments as `BinCounts.count`."""
    keys = np.empty(len(values), dtype=values.dtype)
    return keys[: kernels().pick(*_arguments(bins, values, others), wanted, keys)]


def _arguments(bins: KeyBins, values: Integers, others: Integers | None) -> tuple[Any, ...]:
    """What all kernels that look for bins take."""
    paired = others is not None
    shift = np.uint64(np.iinfo(bins.integer).bits - (16 if bins.integer == "int16" else _PREFIX_BITS))
    magnitude = np.int64(np.iinfo(bins.integer).max)
    return values, others if paired else values, paired, magnitude, shift, bins.table, bins.depth


@dataclass(frozen=True)
class Kernels:
    """The loops over values, compiled or in numpy; both give the same integers."""

    count: Callable[..., int]
    pick: Callable[..., int]
    walk: Callable[..., int]


@lru_cache(maxsize=1)
def kernels() -> Kernels:
    """The compiled kernels, or numpy's where nothing can be compiled."""
    if can_compile():
        return Kernels(kernel()(_count), kernel()(_pick), kernel()(_walk))
    return VECTORISED


def _count(values, others, paired, magnitude, shift, table, depth, counts, side_bits, full):  # type: ignore[no-untyped-def]
    """Count values into bins; numba compiles it.

    Args:
        values: [k] signed integers, bits of floats.
        others: [k] the other sample's bits.
        paired: whether values that equal the others' are left out.
        magnitude: int64, every bit of a value but its sign.
        shift: uint64, exponent of the width of the bins that were cut first.
        table: [entries] uint32 of `KeyBins`.
        depth: number of cuts.
        counts: [bins] uint32, written.
        side_bits: uint32, 0 or 16, where in a count this sample's 16 bits are.
        full: [k] int64, written: bins from whose count 2**15 was taken.

    Returns:
        Number of entries in `full`.
    """
    one, limit = np.uint32(1) << side_bits, np.uint32(_FULL) << side_bits
    last = np.uint64(len(table))
    found = 0
    for i in range(len(values)):
        value = np.int64(values[i])
        if paired and value == others[i]:
            continue
        sign = value >> 63
        rest = np.uint64(((value & magnitude) ^ sign) - sign + magnitude)
        place, width = rest >> shift, shift
        for _ in range(depth):
            rest &= (np.uint64(1) << width) - np.uint64(1)
            entry = table[place]
            width = np.uint64(entry & _WIDTH)
            place = np.uint64(entry >> _WIDTH_BITS) + (rest >> width)
            if entry == _CLOSED:
                break
        else:
            bin_ = place - last
            count = counts[bin_] + one
            if count & limit:
                count ^= limit
                full[found] = np.int64(bin_)
                found += 1
            counts[bin_] = count
    return found


def _pick(values, others, paired, magnitude, shift, table, depth, wanted, keys):  # type: ignore[no-untyped-def]
    """Write the keys of values in wanted bins; arguments as `_count`, wanted [bins] bool; returns how many."""
    last = np.uint64(len(table))
    found = 0
    for i in range(len(values)):
        value = np.int64(values[i])
        if paired and value == others[i]:
            continue
        sign = value >> 63
        key = ((value & magnitude) ^ sign) - sign
        rest = np.uint64(key + magnitude)
        place, width = rest >> shift, shift
        for _ in range(depth):
            rest &= (np.uint64(1) << width) - np.uint64(1)
            entry = table[place]
            width = np.uint64(entry & _WIDTH)
            place = np.uint64(entry >> _WIDTH_BITS) + (rest >> width)
            if entry == _CLOSED:
                break
        else:
            if wanted[place - last]:
                keys[found] = key
                found += 1
    return found


def _walk(x, y, x_ends, y_ends, base, x_step, y_step):  # type: ignore[no-untyped-def]
    """Largest absolute height inside some bins; numba compiles it.

    Args:
        x: sorted keys of the first sample in all of the bins.
        y: the same of the second.
        x_ends: [bins] int64, where in `x` each bin ends.
        y_ends: the same in `y`.
        base: [bins] int64, the height below each bin.
        x_step: by how much a value of the first sample raises it.
        y_step: by how much a value of the second lowers it.
    """
    largest = np.int64(0)
    i = j = 0
    for bin_ in range(len(base)):
        height = base[bin_]
        while i < x_ends[bin_] or j < y_ends[bin_]:
            key = x[i] if j == y_ends[bin_] or (i < x_ends[bin_] and x[i] < y[j]) else y[j]
            while i < x_ends[bin_] and x[i] == key:
                height += x_step
                i += 1
            while j < y_ends[bin_] and y[j] == key:
                height -= y_step
                j += 1
            largest = max(largest, abs(height))
    return largest


def _located(values, others, paired, magnitude, shift, table, depth):  # type: ignore[no-untyped-def]
    """Keys that `_count` would count, and their bins."""
    value = (values[values != others] if paired else values).astype(np.int64)
    key = np.where(value < 0, -(value & magnitude), value)
    rest = (key + magnitude).view(np.uint64)
    place, width = rest >> shift, np.full(len(rest), shift)
    for _ in range(depth):
        rest = rest & ((np.uint64(1) << width) - np.uint64(1))
        entry = table[place]
        width = (entry & _WIDTH).astype(np.uint64)
        place = (entry >> _WIDTH_BITS).astype(np.uint64) + (rest >> width)
        key, rest, place, width = (some[entry != _CLOSED] for some in (key, rest, place, width))
    return key, place - np.uint64(len(table))


def _count_vectorised(*arguments):  # type: ignore[no-untyped-def]
    *where, counts, side_bits, full = arguments
    _, bins = _located(*where)
    np.add.at(counts, bins, np.uint32(1) << side_bits)
    limit = np.uint32(_FULL) << side_bits
    over = np.unique(bins[(counts[bins] & limit) != 0])
    counts[over] ^= limit
    full[: len(over)] = over
    return len(over)


def _pick_vectorised(*arguments):  # type: ignore[no-untyped-def]
    *where, wanted, keys = arguments
    key, bins = _located(*where)
    picked = key[wanted[bins]]
    keys[: len(picked)] = picked
    return len(picked)


def _walk_vectorised(x, y, x_ends, y_ends, base, x_step, y_step):  # type: ignore[no-untyped-def]
    """As `_walk`, in integers of any size if `base` holds Python's.

    The height is largest after some value of `x` and smallest after some value of `y`; what is computed after an
    earlier one of equal values lies nearer to zero.
    """
    largest = 0
    x_starts, y_starts = (np.append(0, ends[:-1]).astype(base.dtype) for ends in (x_ends, y_ends))
    offset = base - x_step * x_starts + y_step * y_starts
    for sign, mine, ends, step, others, other_step in (
        (1, x, x_ends, x_step, y, y_step),
        (-1, y, y_ends, y_step, x, x_step),
    ):
        for start in range(0, len(mine), BLOCK):
            place = np.arange(start, min(start + BLOCK, len(mine)))
            below = np.searchsorted(others, mine[place], side="right").astype(base.dtype)
            bin_ = np.searchsorted(ends, place, side="right")
            height = sign * offset[bin_] + step * (place + 1).astype(base.dtype) - other_step * below
            largest = max(largest, int(height.max()))
    return largest


VECTORISED = Kernels(_count_vectorised, _pick_vectorised, _walk_vectorised)
