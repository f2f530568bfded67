"""Two-sample Kolmogorov-Smirnov statistic of many pairs of rows, as an exact integer."""

from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from ks_lottery.errors import UnitError
from ks_lottery.stats.floats import (
    MIN_VALUES_PER_UNIT,
    FloatBits,
    Values,
    bits_of,
    dtype_of,
    format_of,
    is_tensor,
    on_gpu,
)
from ks_lottery.stats.rows import RowSorter, block_of, for_each_block

if TYPE_CHECKING:
    import torch


@overload
def two_sample_statistic(
    before: "torch.Tensor",
    after: "torch.Tensor",
    *,
    name: str = "rows",
    first_row: int = 0,
    threads: int | None = None,
) -> "torch.Tensor": ...


@overload
def two_sample_statistic(
    before: NDArray[Any] | FloatBits,
    after: NDArray[Any] | FloatBits,
    *,
    name: str = "rows",
    first_row: int = 0,
    threads: int | None = None,
) -> NDArray[np.int64]: ...


def two_sample_statistic(
    before: Values, after: Values, *, name: str = "rows", first_row: int = 0, threads: int | None = None
) -> "torch.Tensor | NDArray[np.int64]":
    """Two-sample Kolmogorov-Smirnov statistic, one test per row.

    D sees a row as a multiset of values: a permuted row has D = 0. Before and after are paired, so D is an effect
    size; see `pvalues`.

    Args:
        before: [units, n] float16, bfloat16, float32 or float64: torch, numpy, or `FloatBits`; weight values,
            unnormalised, any strides, any device.
        after: the same kind, shape and dtype.
        name: what the rows belong to, for error messages.
        first_row: number of the first row in the whole that these rows are a piece of, for error messages.
        threads: on the CPU, how many; one per processor, at most 8, if None.

    Returns:
        [units] int64, a tensor on the device of `before` or an array: h with D = h / n, exact under ties; -0.0 equals
        0.0.

    Raises:
        UnitError: if n < 8, kinds, shapes or dtypes differ, the dtype is another one, or a value is NaN or infinite
            (the row is named).

    Cost:
        O(units * n log n) time, or that of `matrix_statistic` for rows of more than 4 MiB; at most 64 MiB
        beyond the inputs. Bit-identical rows cost one comparison. Tensors on a GPU are not copied from it.

    Source:
        Yuan et al. 2025 (KS-Lottery), section on the KS test; Gnedenko & Korolyuk 1951 for equal samples.
    """
    require_pairs(before, after, name)
    if on_gpu(before) and is_tensor(after):
        return _on_gpu(before, after, name, first_row)
    x, y = bits_of(before, name), bits_of(after, name)
    statistic = np.zeros(len(x), dtype=np.int64)

    def work(sorter: RowSorter, block: slice) -> None:
        old, new = block_of(x, block), block_of(y, block)
        rows = sorter.changed(old, new, block.start)
        statistic[block][rows] = sorter.statistic(old, new, rows, block.start)

    for_each_block(x, work, name, first_row, threads)
    if not is_tensor(before):
        return statistic
    import torch

    return torch.from_numpy(statistic).to(before.device)


def _on_gpu(before: "torch.Tensor", after: "torch.Tensor", name: str, first_row: int) -> "torch.Tensor":
    from ks_lottery.stats import torch_rows, triton_rows

    if triton_rows.available(before):
        return triton_rows.triton_statistic(before, after, name=name, first_row=first_row)
    return torch_rows.torch_statistic(before, after, name=name, first_row=first_row)


def require_pairs(before: Values, after: Values, name: str, least: int = MIN_VALUES_PER_UNIT) -> None:
    """Refuse rows that cannot be compared.

    Args:
        before: [units, n] floats.
        after: the same.
        name: what they belong to, for error messages.
        least: values that a row must have.

    Raises:
        UnitError: if kinds, shapes or dtypes differ, the dtype has no test, or rows are too short.
    """
    kinds = ["torch tensor" if is_tensor(rows) else type(rows).__name__ for rows in (before, after)]
    if kinds[0] != kinds[1]:
        raise UnitError(f"{name!r}: before is a {kinds[0]}, after a {kinds[1]}. Pass two of one kind.")
    if tuple(before.shape) != tuple(after.shape) or len(before.shape) != 2:
        raise UnitError(
            f"{name!r}: before and after must both have shape [units, n], got {tuple(before.shape)} and "
            f"{tuple(after.shape)}. Reshape them to one unit per row, and drop rows that only one of them has."
        )
    dtypes = [dtype_of(rows) for rows in (before, after)]
    if dtypes[0] != dtypes[1]:
        raise UnitError(
            f"{name!r}: before is {dtypes[0]}, after {dtypes[1]}. Rounding alone would shift the distribution: "
            "cast both to the narrower dtype."
        )
    format_of(dtypes[0], name)
    if before.shape[1] < least:
        raise UnitError(
            f"{name!r}: the KS test compares distributions and needs at least {least} values per unit, "
            f"got {before.shape[1]}. Use larger units, or a finder that scores single values ('magnitude')."
        )
