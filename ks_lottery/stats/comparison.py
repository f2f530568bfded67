"""Everything that one pass over pairs of rows can tell: the statistic, how many values changed, how far they moved."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ks_lottery.stats.floats import FORMATS, MIN_VALUES_PER_UNIT, FloatBits, Values, bits_of, is_tensor, on_gpu
from ks_lottery.stats.kolmogorov import require_pairs, two_sample_statistic
from ks_lottery.stats.rows import RowSorter, block_of, for_each_block, kernels

if TYPE_CHECKING:
    import torch

_SUMMED_VALUES = 2**18  # of one row, so that float32 copies of float16 stay small
_GPU_CHUNK_VALUES = 2**21  # float64 copies of both sides stay below 64 MiB


@dataclass(frozen=True, slots=True)
class RowComparison:
    """What became of each row.

    Attributes:
        statistic: [units] int64, h with D = h / n; None if it was not asked for.
        changed_values: [units] int64, values whose bits differ.
        squared_shift: [units] float64, sum of (after - before)^2.
        squared_norm: [units] float64, sum of before^2.
    """

    statistic: NDArray[np.int64] | None
    changed_values: NDArray[np.int64]
    squared_shift: NDArray[np.float64]
    squared_norm: NDArray[np.float64]

    @property
    def shift(self) -> NDArray[np.float64]:
        """[units] Euclidean norm of after - before."""
        return np.sqrt(self.squared_shift)

    @property
    def relative_shift(self) -> NDArray[np.float64]:
        """[units] that over the norm of before; 0 where before is zero."""
        norm = np.sqrt(self.squared_norm)
        return np.divide(self.shift, norm, out=np.zeros_like(norm), where=norm > 0)

    @property
    def changed(self) -> NDArray[np.bool_]:
        """[units] whether any bit differs."""
        return self.changed_values > 0


def compare_rows(
    before: Values,
    after: Values,
    *,
    name: str = "rows",
    first_row: int = 0,
    statistic: bool = True,
    at_least: int = 0,
    threads: int | None = None,
) -> RowComparison:
    """Compare rows in one pass over the memory.

    Args:
        before: [units, n] float16, bfloat16, float32 or float64: numpy, torch or bits, on any device.
        after: the same kind, shape and dtype.
        name: what the rows belong to, for error messages.
        first_row: number of the first row in the whole that these rows are a piece of, for error messages.
        statistic: whether the Kolmogorov-Smirnov statistic is wanted.
        at_least: rows whose h is proven to lie below this need no exact statistic: they get 0. On the CPU it saves
            about half of the time where few rows reach it.
        threads: how many; one per processor, at most 8, if None.

    Returns:
        float64 sums; the statistic is exact where it is at least `at_least`.

    Raises:
        UnitError: as `two_sample_statistic`; the least row length only matters for the statistic.

    Cost:
        One read of both sides, and for changed rows O(n log n) if the statistic is wanted. At most 64 MiB beyond the
        inputs.
    """
    require_pairs(before, after, name, least=MIN_VALUES_PER_UNIT if statistic else 0)
    if on_gpu(before) and is_tensor(after):
        return _compare_on_gpu(before, after, name, first_row, statistic)
    x, y = bits_of(before, name), bits_of(after, name)
    units = len(x)
    result = RowComparison(
        np.zeros(units, dtype=np.int64) if statistic else None,
        np.zeros(units, dtype=np.int64),
        np.zeros(units),
        np.zeros(units),
    )

    def work(sorter: RowSorter, block: slice) -> None:
        _compare_block(block_of(x, block), block_of(y, block), x.dtype, sorter, block, at_least, result)

    for_each_block(x, work, name, first_row, threads)
    return result


def _compare_block(
    x: NDArray[np.signedinteger],
    y: NDArray[np.signedinteger],
    dtype: str,
    sorter: RowSorter,
    block: slice,
    at_least: int,
    result: RowComparison,
) -> None:
    changed, norm = np.zeros(len(x), dtype=np.bool_), result.squared_norm[block]
    _screen(x, y, dtype, changed, norm)
    _require_finite_sums(norm, x, sorter, block.start, "before")
    rows = np.flatnonzero(changed)
    if not len(rows):
        return
    if result.statistic is not None:
        undecided = sorter.undecided(x, y, rows, at_least)
        result.statistic[block][undecided] = sorter.statistic(x, y, undecided, block.start)
    count, shift = np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows))
    _measure(x, y, dtype, rows, count, shift)
    result.changed_values[block][rows], result.squared_shift[block][rows] = count, shift
    _require_finite_sums(result.squared_shift[block], y, sorter, block.start, "after")


def _screen(
    before: NDArray[np.signedinteger],
    after: NDArray[np.signedinteger],
    dtype: str,
    changed: NDArray[np.bool_],
    norm: NDArray[np.float64],
) -> None:
    """Find changed rows, and add up the squares of all."""
    if dtype == "bfloat16":
        kernels().compare_bfloat16(before, after, changed, norm)
        return
    for old, new in _parts(before, after, dtype):
        kernels().compare(old, new, _floats(old, dtype), changed, norm)


def _measure(
    before: NDArray[np.signedinteger],
    after: NDArray[np.signedinteger],
    dtype: str,
    rows: NDArray[np.int64],
    count: NDArray[np.int64],
    shift: NDArray[np.float64],
) -> None:
    """Count the values of some rows that moved, and add up the squares of the moves."""
    if dtype == "bfloat16":
        kernels().moves_bfloat16(before, after, rows, count, shift)
        return
    if dtype == "float16":
        before, after, rows = before[rows], after[rows], np.arange(len(rows))
    for old, new in _parts(before, after, dtype):
        kernels().moves(old, new, _floats(old, dtype), _floats(new, dtype), rows, count, shift)


def _parts(
    before: NDArray[np.signedinteger], after: NDArray[np.signedinteger], dtype: str
) -> Iterator[tuple[NDArray[np.signedinteger], NDArray[np.signedinteger]]]:
    """Both sides as they are; of float16, which has to be copied to be added up, some columns at a time."""
    if dtype != "float16":
        yield before, after
        return
    for start in range(0, before.shape[1], _SUMMED_VALUES):
        part = np.s_[:, start : start + _SUMMED_VALUES]
        yield np.ascontiguousarray(before[part]), np.ascontiguousarray(after[part])


def _require_finite_sums(
    sums: NDArray[np.float64], bits: NDArray[np.signedinteger], sorter: RowSorter, start: int, side: str
) -> None:
    """A sum of squares is NaN or infinite if a value is, and where finite values are too large to be squared."""
    if math.isfinite(sums.sum()):
        return
    for row in np.flatnonzero(~np.isfinite(sums)):
        sorter.require_finite(bits[row : row + 1], start + int(row), side)


def _floats(bits: NDArray[np.signedinteger], dtype: str) -> NDArray[np.floating]:
    """Float32 or float64 values of the rows."""
    values = FloatBits(bits, dtype).values()
    return values.astype(np.float32) if dtype == "float16" else values


def _compare_on_gpu(
    before: "torch.Tensor", after: "torch.Tensor", name: str, first_row: int, statistic: bool
) -> RowComparison:
    import torch

    h = two_sample_statistic(before, after, name=name, first_row=first_row) if statistic else None
    integer = getattr(torch, FORMATS[str(before.dtype).removeprefix("torch.")].integer)
    columns: list[list[torch.Tensor]] = [[], [], []]
    for x, y in zip(*(side.split(max(1, _GPU_CHUNK_VALUES // side.shape[1])) for side in (before, after)), strict=True):
        columns[0].append((x.view(integer) != y.view(integer)).sum(dim=1))
        columns[1].append((y.double() - x.double()).square_().sum(dim=1))
        columns[2].append(x.double().square_().sum(dim=1))
    changed, squared_shift, squared_norm = (torch.cat(column).cpu().numpy() for column in columns)
    for sums, side, values in ((squared_norm, "before", before), (squared_shift, "after", after)):
        for row in np.flatnonzero(~np.isfinite(sums)):
            bits = bits_of(values[row : row + 1])
            RowSorter(bits.shape[1], bits.dtype, name, first_row).require_finite(bits.array, int(row), side)
    return RowComparison(None if h is None else h.cpu().numpy(), changed, squared_shift, squared_norm)


def joined(pieces: Sequence[RowComparison]) -> RowComparison:
    """One comparison of the rows of several, in order; all of them with a statistic, or none."""
    heights = [piece.statistic for piece in pieces if piece.statistic is not None]
    return RowComparison(
        np.concatenate(heights) if heights else None,
        np.concatenate([piece.changed_values for piece in pieces]),
        np.concatenate([piece.squared_shift for piece in pieces]),
        np.concatenate([piece.squared_norm for piece in pieces]),
    )
