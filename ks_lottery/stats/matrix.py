"""Two-sample Kolmogorov-Smirnov statistic of a whole matrix, as an exact integer, without sorting it."""

import itertools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ks_lottery.errors import UnitError
from ks_lottery.stats.floats import FORMATS, FloatBits, Values, bits_of, format_of
from ks_lottery.stats.jit import worker_count
from ks_lottery.stats.kolmogorov import MIN_VALUES_PER_UNIT
from ks_lottery.stats.matrix_bins import BLOCK, VECTORISED, BinCounts, KeyBins, OpenBins, kernels, keys_in

Bits = NDArray[Any]
Piece = tuple[
    Bits | None, Bits | None
]  # before, after; both are given only if values at the same place belong together

_PART = 2**18  # values that a thread takes at once
_KEPT_BYTES, _SORTED_BYTES = 2**23, 2**24  # changed values that are kept at first; keys that are sorted at once
_COARSE_BINS, _FINE_BINS = 2**18, 2**19
_VALUES_PER_PART = 32
_SAMPLE = 2**17
_LARGEST_INT64 = 2**62  # heights beyond are Python's integers


def matrix_statistic(before: Values, after: Values, *, name: str = "matrix", threads: int | None = None) -> int:
    """Two-sample Kolmogorov-Smirnov statistic of all values of two matrices.

    D sees a matrix as a multiset of values. The weights of a layer before and after are paired, so D is an effect
    size; see `pvalues`.

    Args:
        before: float16, bfloat16, float32 or float64, any shape and strides: numpy, torch, or `FloatBits`. A tensor on
            an accelerator is copied to the CPU.
        after: the same dtype; the number of values may differ.
        name: what they are, for error messages.
        threads: how many; one per processor, at most 8, if None.

    Returns:
        k with D = k / lcm(n, m) for n values before and m after, so h with D = h / n if n = m. Exact under ties; -0.0
        equals 0.0.

    Raises:
        UnitError: if a side has less than 8 values, the dtypes differ or have no test here, or a value is NaN or
            infinite (its position is named).

    Cost:
        O(n + m): one pass for 16-bit floats, as a rule two or three for wider ones, and a small part is sorted. Data of
        which every part could hold the maximum, such as a permutation, are sorted 8 MiB at a time, with a pass for
        each. If n = m, values that are bit-identical at the same place cost one comparison. At most 64 MiB beyond the
        inputs (several times that if lcm(n, m) > 2**62).

    Source:
        Smirnov 1939. Bins with exact refinement: ours.
    """
    x, y = bits_of(before, name), bits_of(after, name)
    _require_same_dtype(x.dtype, y.dtype, name)
    n, m = x.array.size, y.array.size
    _require_enough(n, m, name)
    whole = math.lcm(n, m)
    number = np.int64 if whole <= _LARGEST_INT64 else object
    intake = _Intake(x.dtype, name, (whole // n, whole // m), number)
    pieces: list[Piece] = [(x.array, y.array)] if n == m else [(x.array, None), (None, y.array)]
    with ThreadPoolExecutor(worker_count(threads)) as pool:
        for piece in pieces:
            _for_each_part(piece, intake.add, pool)
        return _Search(intake, lambda: iter(pieces), pool).largest()


class MatrixShift:
    """Statistic of a matrix that is read in pieces, in bounded memory.

    Up to 8 MiB of changed values are kept. If there are more they are counted into bins, and the few that could hold
    the maximum are read again at the end. 16-bit floats are read once.

    Args:
        dtype: of both sides, a key of `FORMATS`.
        name: what is read, for error messages.

    Attributes:
        size: values added so far, per side.

    Raises:
        UnitError: if the dtype has no test here.

    Cost:
        As `matrix_statistic`, beyond the pieces.
    """

    def __init__(self, dtype: str, name: str = "matrix") -> None:
        self.size = 0
        self._dtype, self._name = dtype, name
        self._intake = _Intake(dtype, name)
        self._lock = Lock()

    def add(self, before: FloatBits, after: FloatBits, *, start: int | None = None) -> None:
        """Take a piece; several threads may add at once, in any order.

        Args:
            before: any shape.
            after: the same shape; a value belongs to the one at the same place.
            start: flat position of the piece in the matrix, for error messages; behind what was added so far if None.

        Raises:
            UnitError: if the dtypes or shapes differ, or a value is NaN or infinite (its position is named).
        """
        self._require_pair(before, after)
        with self._lock:
            first = self.size if start is None else start
            self.size += before.array.size
        for place in _parts(before.array.size):
            self._intake.add(_flat(before.array, place), _flat(after.array, place), first + place.start)

    def statistic(
        self, reread: Callable[[], Iterator[tuple[FloatBits, FloatBits]]], *, threads: int | None = None
    ) -> int:
        """The statistic of all pieces added, once no thread is adding.

        Args:
            reread: begins to read the same matrices again, in pieces of any size; called as often as needed, which may
                be never. A piece is used only until the next one is asked for.
            threads: for what is read again; one per processor, at most 8, if None.

        Returns:
            h with D = h / n for n pairs of values.

        Raises:
            UnitError: if less than 8 pairs were added, or what is read again is something else.
        """
        _require_enough(self.size, self.size, self._name)

        def pieces() -> Iterator[Piece]:
            for before, after in reread():
                self._require_pair(before, after)
                yield before.array, after.array

        with ThreadPoolExecutor(worker_count(threads)) as pool:
            return _Search(self._intake, pieces, pool).largest()

    def _require_pair(self, before: FloatBits, after: FloatBits) -> None:
        _require_same_dtype(before.dtype, after.dtype, self._name)
        if before.dtype != self._dtype:
            raise UnitError(f"{self._name!r} is {self._dtype}, got a piece of {before.dtype}. Cast all of it or none.")
        if before.shape != after.shape:
            raise UnitError(
                f"{self._name!r}: the pieces of before and after have shapes {before.shape} and {after.shape}. Read "
                "the same rows of both."
            )


class _Intake:
    """What is known of two samples after every value was seen once: few changed values themselves, or counts in bins.

    Args:
        dtype: of both samples, a key of `FORMATS`.
        name: what they are, for error messages.
        weights: what a value of each sample counts.
        number: type of a height.
    """

    def __init__(self, dtype: str, name: str, weights: tuple[int, int] = (1, 1), number: type = np.int64) -> None:
        self.dtype, self.name, self.weights, self.number = dtype, name, weights, number
        self.integer = np.dtype(format_of(dtype, name).integer)
        self.kept: tuple[list[Bits], list[Bits]] = ([], [])
        self.counts: BinCounts | None = None
        self._kept_values = 0
        self._exponent = FORMATS[dtype].exponent
        self._lock = Lock()
        self._every_key = self.integer.itemsize == 2
        if self._every_key:
            self.counts = BinCounts(KeyBins.of_upper_bits(self.integer.name))

    def add(self, before: Bits | None, after: Bits | None, start: int) -> None:
        """Take a part of one sample or, if they are paired, of both; `start` is its flat position."""
        for values, others, side, offset in _blocks(before, after):
            self._require_finite(values, start + offset, side)
            changed = slice(None) if others is None else values != others
            if isinstance(changed, slice) or changed.any():
                if self.counts is None and self._keep(values[changed], side):
                    continue
                assert self.counts is not None
                # Where every key has a bin, pairs of equal values cancel, and looking for them would take longer.
                self.counts.count(values, None if self._every_key else others, side)

    def _require_finite(self, bits: Bits, start: int, side: int) -> None:
        if (bits & self._exponent).max() == self._exponent:
            position = start + int(FloatBits(bits, self.dtype).finite().argmin())
            raise UnitError(
                f"{self.name!r} {('before', 'after')[side]} holds NaN or an infinite value at flat position "
                f"{position}. Leave it out, or use a checkpoint whose training did not diverge."
            )

    def _keep(self, values: Bits, side: int) -> bool:
        """Keep some values, unless bins are in use."""
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
        bins = KeyBins.of_upper_bits(self.integer.name)
        sample = BinCounts(bins)
        step = self._kept_values // _SAMPLE + 1
        for values in itertools.chain(*self.kept):
            sample.count(values[::step], None, 0)
        counts = BinCounts(bins.cut(np.arange(len(bins)), sample.totals()[0], _COARSE_BINS)[0])
        for side, kept in enumerate(self.kept):
            for values in kept:
                counts.count(values, None, side)
            kept.clear()
        self.counts = counts


class _Search:
    """Finds the largest height: at some x, the weighted difference of two samples' counts of values up to x.

    Heights at the edges of bins are known from counts. A bin is open if the height inside it could exceed the largest
    one reached so far, were all its values of one sample below those of the other. Open bins are cut into finer
    ones or, if they hold little, their values are sorted.

    Args:
        intake: the samples, seen once.
        pieces: begins to read the same values again.
        pool: threads to use.
    """

    def __init__(self, intake: _Intake, pieces: Callable[[], Iterator[Piece]], pool: Executor) -> None:
        self._intake, self._pieces, self._pool = intake, pieces, pool
        self._capacity = _SORTED_BYTES // intake.integer.itemsize
        self._largest = 0

    def largest(self) -> int:
        """The largest absolute height."""
        intake = self._intake
        if intake.counts is None:
            keys = [FloatBits(np.concatenate([*kept]), intake.dtype).keys() for kept in intake.kept if kept]
            if keys:
                self._walk(keys, np.array([[len(side)] for side in keys]), np.zeros(1, dtype=intake.number))
            return self._largest
        zero = np.zeros(1, dtype=np.int64)
        pending = [self._open(intake.counts.bins, intake.counts.totals(), zero, zero.astype(intake.number))]
        while pending:
            group = self._still_open(pending.pop())
            sizes = group.sizes
            coarse = sizes.max(initial=0) > self._capacity // 2 or sizes.sum() > 2 * _VALUES_PER_PART * len(group)
            if sizes.sum() <= self._capacity:
                self._sort(group)
                continue
            runs = group.runs(_VALUES_PER_PART * _FINE_BINS if coarse else self._capacity // 2)
            if len(runs) > 1:
                pending += sorted(runs, key=lambda run: self._potential(run).max())
            else:
                pending.append(self._cut(group))
        return self._largest

    def _open(self, bins: KeyBins, counts: NDArray[np.int64], first: NDArray[np.int64], base: NDArray[Any]) -> OpenBins:
        """Look at the heights at the edges of bins, which come in runs.

        Args:
            bins: the bins.
            counts: [2, bins] of both samples.
            first: [runs] int64, where each run begins.
            base: [runs] the height below it.
        """
        steps = self._weighted(counts[0], 0) - self._weighted(counts[1], 1)
        heights = np.cumsum(steps)
        heights += np.repeat(base - (heights - steps)[first], np.diff(first, append=len(bins)))
        self._largest = max(self._largest, int(abs(heights).max()))
        mixed = np.flatnonzero((counts > 0).all(axis=0) & (bins.width_bits > 0))
        return self._still_open(OpenBins(bins, mixed, (heights - steps)[mixed], counts[:, mixed]))

    def _still_open(self, group: OpenBins) -> OpenBins:
        return group[self._potential(group) > self._largest]

    def _potential(self, group: OpenBins) -> NDArray[Any]:
        """No height inside a bin is larger than this."""
        up = group.base + self._weighted(group.counts[0], 0)
        return np.maximum(up, self._weighted(group.counts[1], 1) - group.base)

    def _weighted(self, counts: NDArray[np.int64], side: int) -> NDArray[Any]:
        return counts.astype(self._intake.number) * self._intake.weights[side]

    def _cut(self, group: OpenBins) -> OpenBins:
        """Count again, in parts of these bins."""
        finer, first = group.bins.cut(group.index, group.sizes, max(_FINE_BINS, 2 * len(group)))
        counts = BinCounts(finer)
        self._read_again(counts.count)
        totals = counts.totals()
        self._require_unchanged(np.add.reduceat(totals, first, axis=1), group.counts)
        return self._open(finer, totals, first, group.base)

    def _sort(self, group: OpenBins) -> None:
        """Read the values in these bins, and look at the height after each."""
        if not len(group):
            return
        wanted = np.zeros(len(group.bins), dtype=np.bool_)
        wanted[group.index] = True
        keys = [np.empty(size, dtype=self._intake.integer) for size in group.counts.sum(axis=1)]
        filled = np.zeros(2, dtype=np.int64)
        lock = Lock()

        def pick(values: Bits, others: Bits | None, side: int) -> None:
            found = keys_in(group.bins, wanted, values, others)
            with lock:
                start = filled[side]
                filled[side] += len(found)
            if start + len(found) <= len(keys[side]):
                keys[side][start : start + len(found)] = found

        self._read_again(pick)
        self._require_unchanged(filled, group.counts.sum(axis=1))
        self._walk(keys, group.counts, group.base)

    def _require_unchanged(self, counts: NDArray[np.int64], expected: NDArray[np.int64]) -> None:
        if not np.array_equal(counts, expected):
            raise UnitError(
                f"{self._intake.name!r} changed while it was read: other values were found the second time. Compute "
                "the statistic when nothing writes to the weights, and read the same again."
            )

    def _walk(self, keys: list[Bits], counts: NDArray[np.int64], base: NDArray[Any]) -> None:
        """Look at the height after each key; [2, bins] counts say how the keys share out among bins."""
        list(self._pool.map(lambda side: side.sort(), keys))
        walk = (kernels() if base.dtype == np.int64 else VECTORISED).walk
        ends = np.cumsum(counts, axis=1)
        self._largest = max(self._largest, int(walk(*keys, *ends, base, *self._intake.weights)))

    def _read_again(self, work: Callable[[Bits, Bits | None, int], None]) -> None:
        def part(before: Bits | None, after: Bits | None, _: int) -> None:
            for values, others, side, _ in _blocks(before, after):
                work(values, others, side)

        for piece in self._pieces():
            _for_each_part(piece, part, self._pool)


def _for_each_part(piece: Piece, work: Callable[[Bits | None, Bits | None, int], None], pool: Executor) -> None:
    """Call `work` on several threads, with contiguous parts of a piece and their flat positions."""
    before, after = piece

    def part(place: slice) -> None:
        work(_flat(before, place), _flat(after, place), place.start)

    for _ in pool.map(part, _parts(_size(piece))):
        pass


def _size(piece: Piece) -> int:
    return max(0 if side is None else side.size for side in piece)


def _blocks(before: Bits | None, after: Bits | None) -> Iterator[tuple[Bits, Bits | None, int, int]]:
    """Values of at most `BLOCK` places of one side, the other side's, which side it is, and the first place."""
    for place in _parts(_size((before, after)), BLOCK):
        x, y = (None if side is None else side[place] for side in (before, after))
        if x is not None:
            yield x, y, 0, place.start
        if y is not None:
            yield y, x, 1, place.start


def _parts(size: int, step: int = _PART) -> Iterator[slice]:
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def _flat(array: Bits | None, place: slice) -> Bits | None:
    """Some values in their flat order, without a copy of the rest."""
    if array is None or array.flags.c_contiguous:
        return None if array is None else array.reshape(-1)[place]
    return np.asarray(array.flat[place])


def _require_same_dtype(before: str, after: str, name: str) -> None:
    if before != after:
        raise UnitError(
            f"{name!r}: before is {before}, after {after}. Rounding alone would shift the distribution: cast both to "
            "the narrower dtype."
        )


def _require_enough(n: int, m: int, name: str) -> None:
    if min(n, m) < MIN_VALUES_PER_UNIT:
        raise UnitError(
            f"{name!r}: the KS test compares distributions and needs at least {MIN_VALUES_PER_UNIT} values, got {n} "
            f"before and {m} after. Join small matrices, or compare their values one by one."
        )
