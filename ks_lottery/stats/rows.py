"""The engine of the row-wise statistic on the CPU: screen, pack, sort, climb."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from time import perf_counter
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ks_lottery.errors import UnitError
from ks_lottery.stats.bound import settled_below
from ks_lottery.stats.floats import FORMATS, FloatBits
from ks_lottery.stats.jit import can_compile, worker_count
from ks_lottery.stats.matrix import matrix_statistic

_BLOCK_BYTES = 2**20  # of one side: the least that a thread compares at once
_MOST_BLOCK_BYTES = 2**23  # the most; larger blocks keep threads from waiting for each other
_SORT_BYTES = 2**19  # of one side: what stays in the cache while it is packed, sorted and climbed
_MOST_SORTED_BYTES = 2**22  # of one side of a row: larger ones are not sorted as a whole
_BLOCKS_SORTED_AFTER_FAILURE = 15
_VALUES_PER_THREAD = 2**18  # fewer values than this are not worth a thread of their own


@lru_cache(maxsize=1)
def kernels() -> ModuleType:
    """The compiled kernels, or numpy's where nothing can be compiled; both give the same integers."""
    if can_compile():
        from ks_lottery.stats import compiled

        return compiled
    from ks_lottery.stats import vectorised

    return vectorised


def for_each_block(
    before: FloatBits,
    work: Callable[["RowSorter", slice], None],
    name: str,
    first_row: int,
    threads: int | None,
) -> None:
    """Call `work` for blocks of rows that together are all of them, on several threads.

    Args:
        before: [units, n] bits; only its shape and dtype are looked at.
        work: takes a thread's sorter and the rows of a block.
        name: what the rows belong to, for error messages.
        first_row: number of the first row, for error messages.
        threads: how many; one per processor, at most 8, if None.
    """
    n = before.shape[1]
    most = worker_count(threads)
    # Rows that are not contiguous are copied, block by block.
    shared = before.array.nbytes // (1 if most == 1 else 4 * most) if before.array.flags.c_contiguous else 0
    block_bytes = min(max(shared, _BLOCK_BYTES), _MOST_BLOCK_BYTES)
    rows = max(1, block_bytes // max(1, n * before.array.itemsize))
    starts = range(0, len(before), rows)
    workers = min(most, len(starts), max(1, before.array.size // _VALUES_PER_THREAD))

    def some(mine: range) -> None:
        sorter = RowSorter(n, before.dtype, name, first_row, threads=most // max(1, workers))
        for start in mine:
            work(sorter, slice(start, start + rows))

    if workers <= 1:
        some(starts)
        return
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(some, (starts[worker::workers] for worker in range(workers))))


def block_of(bits: FloatBits, block: slice) -> NDArray[Any]:
    """Some rows as a contiguous array that may not be written to, whatever it is a view of.

    Numba compiles a kernel once more for arrays that may be written to.
    """
    rows = np.ascontiguousarray(bits.array[block]).view()
    rows.flags.writeable = False
    return rows


def as_words(before: NDArray[Any], after: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """[rows, n] bits of both sides as [rows, w] int64 where rows consist of such, else as they are."""
    whole = before.shape[1] * before.itemsize % 8 == 0
    if whole and all(side.ctypes.data % 8 == 0 for side in (before, after)):
        return before.view(np.int64), after.view(np.int64)
    return before, after


@lru_cache(maxsize=16)
def word_masks(dtype: str, word: str) -> NDArray[Any]:
    """What `compiled.screen` takes: [3] masks of the floats of a dtype in a word, which is an integer type's name."""
    width, exponent = np.iinfo(FORMATS[dtype].integer).bits, FORMATS[dtype].exponent
    every = sum(1 << place for place in range(0, np.iinfo(word).bits, width))
    masks = [exponent * every, (exponent & -exponent) * every, every << (width - 1)]
    return np.array(masks, dtype=f"u{np.dtype(word).name}").view(word)


class RowSorter:
    """One thread's buffers: 1 MiB, or two rows where that is more; at most 8 MiB.

    Args:
        n: values per row.
        dtype: a key of `FORMATS`.
        name: what the rows belong to, for error messages.
        first_row: number of the first row of all, for error messages.
        threads: how many may work on one row of more than 4 MiB.
    """

    def __init__(self, n: int, dtype: str, name: str, first_row: int, threads: int = 1) -> None:
        integer = np.dtype(FORMATS[dtype].integer)
        self._threads = threads
        self._large = n * integer.itemsize > _MOST_SORTED_BYTES
        self._dtype, self._name, self._first_row = dtype, name, first_row
        self._exponent = np.array([FORMATS[dtype].exponent], dtype=integer)
        self._magnitude = np.array([np.iinfo(integer).max], dtype=integer)
        capacity = 0 if self._large else max(1, _SORT_BYTES // (n * integer.itemsize))
        self._keys = [np.empty((capacity, n), dtype=integer) for _ in range(2)]
        self._sort_kind = sort_kind(integer.name)
        self._blocks_to_sort = 0

    def changed(self, before: NDArray[Any], after: NDArray[Any], start: int) -> NDArray[np.int64]:
        """Which rows of a block differ in any bit.

        Args:
            before: [rows, n] bits, contiguous.
            after: the same.
            start: number of the block's first row among all.

        Returns:
            [changed rows] int64, ascending, counted from the start of the block.

        Raises:
            UnitError: if an unchanged row holds NaN or infinity.
        """
        differs, finite = np.empty(len(before), dtype=bool), np.empty(len(before), dtype=bool)
        x, y = as_words(before, after)
        kernels().screen(x, y, word_masks(self._dtype, x.dtype.name), differs, finite)
        if not finite.all():
            self.require_finite(before, start, "before")
        return np.flatnonzero(differs)

    def undecided(
        self, before: NDArray[Any], after: NDArray[Any], rows: NDArray[np.int64], at_least: int
    ) -> NDArray[np.int64]:
        """Those of some rows whose statistic could reach a threshold.

        Where less than half of a block is settled, counting costs more than it saves, and the next blocks are sorted
        whole.

        Args:
            before: [rows of the block, n] bits, contiguous.
            after: the same.
            rows: [k] which of them, counted from the start of the block.
            at_least: the threshold h.

        Returns:
            [up to k] int64, a part of `rows`; the others have h < at_least.
        """
        self._blocks_to_sort -= 1
        if at_least <= 1 or self._blocks_to_sort >= 0 or not len(rows) or self._large:
            return rows
        some = slice(None) if len(rows) == len(before) else rows
        old, new = FloatBits(before[some], self._dtype), FloatBits(after[some], self._dtype)
        below = settled_below(old, new, at_least)
        if 2 * below.sum() < len(rows):
            self._blocks_to_sort = _BLOCKS_SORTED_AFTER_FAILURE
        return rows[~below]

    def statistic(
        self, before: NDArray[Any], after: NDArray[Any], rows: NDArray[np.int64], start: int
    ) -> NDArray[np.int64]:
        """The integer statistic of some rows of a block.

        Args:
            before: [rows of the block, n] bits, contiguous.
            after: the same.
            rows: [k] which of them, counted from the start of the block.
            start: number of the block's first row among all.

        Returns:
            [k] int64.

        Raises:
            UnitError: if one of them holds NaN or infinity.
        """
        if self._large:
            return np.array([self._of_large(before, after, row, start) for row in rows], dtype=np.int64)
        result = np.empty(len(rows), dtype=np.int64)
        run = kernels()
        capacity = len(self._keys[0])
        for first in range(0, len(rows), capacity):
            some = rows[first : first + capacity]
            keys = [buffer[: len(some)] for buffer in self._keys]
            run.pack(before, after, some, self._magnitude, *keys)
            for side in keys:
                side.sort(axis=1, kind=self._sort_kind)
            run.climb(*keys, self._exponent, result[first : first + capacity])
        if result.min(initial=0) < 0:
            row = int(rows[result.argmin()])
            self.require_finite(before[row : row + 1], start + row, "before")
            self.require_finite(after[row : row + 1], start + row, "after")
        return result

    def _of_large(self, before: NDArray[Any], after: NDArray[Any], row: int, start: int) -> int:
        sides = FloatBits(before[row], self._dtype), FloatBits(after[row], self._dtype)
        try:
            return matrix_statistic(*sides, name=self._name, threads=self._threads)
        except UnitError:
            self.require_finite(before[row : row + 1], start + row, "before")
            self.require_finite(after[row : row + 1], start + row, "after")
            raise

    def require_finite(self, bits: NDArray[Any], start: int, side: str) -> None:
        """Check that rows hold numbers.

        Args:
            bits: [rows, n].
            start: number of the first of them among all.
            side: "before" or "after".

        Raises:
            UnitError: with the first row that holds NaN or infinity, and where in it.
        """
        finite = FloatBits(bits, self._dtype).finite()
        if not finite.all():
            row, position = np.argwhere(~finite)[0]
            count = int((~finite[row]).sum())
            raise UnitError(
                f"Row {self._first_row + start + row} of {self._name!r} {side} holds {count} NaN or infinite value(s), "
                f"the first at position {position}. Leave the row out, or use a checkpoint whose training did not "
                "diverge."
            )


@lru_cache(maxsize=8)
def sort_kind(integer: str) -> Literal["quicksort", "stable"]:
    """The faster of numpy's sorts for an integer type on this machine; the sorted values are the same.

    numpy's default sort of 16-bit integers is vectorised on some processors, and twelve times slower than its radix
    sort on others.
    """
    if np.dtype(integer).itemsize > 2:
        return "quicksort"
    sample = np.random.default_rng(0).integers(-(2**15), 2**15, size=(4, 4096)).astype(integer)
    seconds: dict[Literal["quicksort", "stable"], float] = {}
    for kind in ("quicksort", "stable", "quicksort", "stable"):  # the first of each warms up
        started = perf_counter()
        np.sort(sample, axis=1, kind=kind)
        seconds[kind] = perf_counter() - started
    return min(seconds, key=lambda kind: seconds[kind])
