"""Two-sample Kolmogorov-Smirnov statistic of a whole matrix, as an exact integer, without sorting it."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ks_lottery.errors import UnitError
from ks_lottery.stats.floats import MIN_VALUES_PER_UNIT, FloatBits, Values, bits_of
from ks_lottery.stats.jit import worker_count
from ks_lottery.stats.matrix_bins import BINS, BinCounts, Bits, Intake, KeyBins, OpenBins, blocks
from ks_lottery.stats.matrix_kernels import VECTORISED, kernels

Piece = tuple[Bits | None, Bits | None]  # before and after: both only if they are paired

_PART = 2**18  # values that a thread takes at once
_SORTED_BYTES = 2**24  # keys that are sorted at once
_VALUES_PER_PART = 32  # on average, when bins are cut
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
        which every part could hold the maximum, such as a permutation, are sorted 16 MiB at a time, with a pass for
        each. If n = m, values that are bit-identical at the same place cost one comparison. At most 64 MiB beyond the
        inputs (several times that if lcm(n, m) > 2**62).

    Source:
        Smirnov 1939. Bins with exact refinement: ours.
    """
    x, y = bits_of(before, name), bits_of(after, name)
    _require_same_dtype(x.dtype, y.dtype, name)
    n, m = x.array.size, y.array.size
    _require_enough(n, m, name)
    intake = Intake(x.dtype, name)
    pieces: list[Piece] = [(x.array, y.array)] if n == m else [(x.array, None), (None, y.array)]
    with ThreadPoolExecutor(worker_count(threads)) as pool:
        for piece in pieces:
            _for_each_part(piece, intake.add, pool)
        return _Search(intake, lambda: iter(pieces), pool, (n, m)).largest()


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
        self._intake = Intake(dtype, name)
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
            return _Search(self._intake, pieces, pool, (self.size, self.size)).largest()

    def _require_pair(self, before: FloatBits, after: FloatBits) -> None:
        _require_same_dtype(before.dtype, after.dtype, self._name)
        if before.dtype != self._dtype:
            raise UnitError(f"{self._name!r} is {self._dtype}, got a piece of {before.dtype}. Cast all of it or none.")
        if before.shape != after.shape:
            raise UnitError(
                f"{self._name!r}: the pieces of before and after have shapes {before.shape} and {after.shape}. Read "
                "the same rows of both."
            )


class _Search:
    """Finds the largest height: at some x, the weighted difference of two samples' counts of values up to x.

    Heights at the edges of bins are known from counts. A bin is open if the height inside it could exceed the largest
    one reached so far, were all its values of one sample below those of the other. Open bins are cut into finer ones,
    or their values are sorted if they are few.

    Args:
        intake: the samples, seen once.
        pieces: begins to read the same values again.
        pool: threads to use.
        sizes: of the samples.
    """

    def __init__(
        self, intake: Intake, pieces: Callable[[], Iterator[Piece]], pool: Executor, sizes: tuple[int, int]
    ) -> None:
        self._intake, self._pieces, self._pool = intake, pieces, pool
        largest = math.lcm(*sizes)
        self._weights = [largest // size for size in sizes]
        self._number = np.dtype(np.int64 if largest <= _LARGEST_INT64 else object)
        self._capacity = _SORTED_BYTES // intake.integer.itemsize
        self._largest = 0

    def largest(self) -> int:
        """The largest absolute height."""
        intake = self._intake
        if intake.counts is None:
            keys = [FloatBits(np.concatenate(kept), intake.dtype).keys() for kept in intake.kept if kept]
            if keys:
                self._walk(keys, np.array([[len(side)] for side in keys]), np.zeros(1, dtype=self._number))
            return self._largest
        if self._intake.integer.itemsize == 2 and self._number == np.int64:
            return intake.counts.peak(*self._weights)  # a bin holds one key
        zero = np.zeros(1, dtype=np.int64)
        pending = [self._open(intake.counts.bins, intake.counts.totals(), zero, zero.astype(self._number))]
        while pending:
            group = self._still_open(pending.pop())
            sizes = group.sizes
            coarse = sizes.max(initial=0) > self._capacity // 2 or sizes.sum() > 2 * _VALUES_PER_PART * len(group)
            if sizes.sum() <= self._capacity:
                self._sort(group)
                continue
            runs = group.runs(_VALUES_PER_PART * BINS if coarse else self._capacity // 2)
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
        ends = np.cumsum(steps)
        if len(first) > 1 or base[0]:
            ends += np.repeat(base - (ends - steps)[first], np.diff(first, append=len(bins)))
        self._largest = max(self._largest, int(ends.max()), -int(ends.min()))
        mixed = np.flatnonzero((bins.width_bits > 0) & (counts[0] > 0) & (counts[1] > 0))
        return self._still_open(OpenBins(bins, mixed, (ends - steps)[mixed], counts[:, mixed]))

    def _still_open(self, group: OpenBins) -> OpenBins:
        return group[self._potential(group) > self._largest]

    def _potential(self, group: OpenBins) -> NDArray[Any]:
        """No height inside a bin is larger than this."""
        up = group.base + self._weighted(group.counts[0], 0)
        return np.maximum(up, self._weighted(group.counts[1], 1) - group.base)

    def _weighted(self, counts: NDArray[np.int64], side: int) -> NDArray[Any]:
        weight = self._weights[side]
        return counts if weight == 1 else counts.astype(self._number, copy=False) * weight

    def _cut(self, group: OpenBins) -> OpenBins:
        """Count again, in parts of these bins."""
        finer, first = group.bins.cut(group.index, group.sizes, max(BINS, 4 * len(group)))
        counts = BinCounts(finer)
        self._read_again(counts.count)
        totals = counts.totals()
        self._require_unchanged(np.add.reduceat(totals, first, axis=1), group.counts)
        return self._open(finer, totals, first, group.base)

    def _sort(self, group: OpenBins) -> None:
        """Read the values in these bins, and look at the height after each."""
        if not len(group):
            return
        pick = group.picker()
        keys = [np.empty(size, dtype=self._intake.integer) for size in group.counts.sum(axis=1)]
        filled = np.zeros(2, dtype=np.int64)
        lock = Lock()

        def work(values: Bits, others: Bits | None, side: int) -> None:
            found = pick(values, others)
            with lock:
                start = filled[side]
                filled[side] += len(found)
            if start + len(found) <= len(keys[side]):
                keys[side][start : start + len(found)] = found

        self._read_again(work)
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
        self._largest = max(self._largest, int(walk(*keys, *ends, base, *self._weights)))

    def _read_again(self, work: Callable[[Bits, Bits | None, int], None]) -> None:
        """Call `work` with all values in blocks, those of the other sample at the same places, and the side."""

        def part(before: Bits | None, after: Bits | None, _: int) -> None:
            for x, y, _ in blocks(before, after):
                if x is not None:
                    work(x, y, 0)
                if y is not None:
                    work(y, x, 1)

        for piece in self._pieces():
            _for_each_part(piece, part, self._pool)


def _for_each_part(piece: Piece, work: Callable[[Bits | None, Bits | None, int], None], pool: Executor) -> None:
    """Call `work` on several threads, with contiguous parts of a piece and their flat positions."""
    before, after = piece

    def part(place: slice) -> None:
        work(_flat(before, place), _flat(after, place), place.start)

    size = max(0 if side is None else side.size for side in piece)
    for _ in pool.map(part, _parts(size)):
        pass


def _parts(size: int) -> Iterator[slice]:
    return (slice(start, start + _PART) for start in range(0, size, _PART))


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
