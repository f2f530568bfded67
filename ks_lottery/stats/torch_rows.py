"""The row-wise statistic in plain torch, for tensors that stay on their device: screen, pack, sort, rank."""

import torch
from torch import Tensor

from ks_lottery.errors import UnitError
from ks_lottery.stats.floats import FORMATS, dtype_of
from ks_lottery.stats.rows import RowSorter

_SCREEN_VALUES = 2**22  # of one side: what is compared at once, with a copy and two booleans beside it
_SORT_BYTES = 2**22  # of both sides' keys, in 4 bytes or more: a sort holds indices and buffers of 8 to 12 times that


def torch_statistic(before: Tensor, after: Tensor, *, name: str = "rows", first_row: int = 0) -> Tensor:
    """Two-sample Kolmogorov-Smirnov statistic, one test per row, without leaving the device.

    Sorted rows a and b have D = max over i of (count of b < a[i]) - i and (count of a < b[i]) - i, divided by n: the
    strict comparison keeps ties exact, whatever the order within them.

    Args:
        before: [units, n] float16, bfloat16, float32 or float64, any strides, any device.
        after: the same shape and dtype, on the same device.
        name: what the rows belong to, for error messages.
        first_row: number of the first row in the whole that these rows are a piece of, for error messages.

    Returns:
        [units] int64 on the device of `before`: h with D = h / n; -0.0 equals 0.0.

    Raises:
        UnitError: if the devices differ, or a value is NaN or infinite (the first such row is named).

    Cost:
        O(units * n log n) time in a fixed number of kernels per chunk; the host waits for the device twice in all. At
        most 64 MiB beyond the inputs, or a few rows where that is more.
    """
    require_one_device(before, after, name)
    units, n = before.shape
    old, new = bits_on_device(before), bits_on_device(after)
    statistic = torch.zeros(units, dtype=torch.int64, device=before.device)
    changed, broken_before, broken_after = _screen(old, new, FORMATS[dtype_of(before)].exponent)
    broken = (broken_before | broken_after).nonzero()
    if len(broken):
        row = int(broken[0])
        refuse(before, after, row, "before" if broken_before[row] else "after", name, first_row)
    rows_at_once = max(1, _SORT_BYTES // (2 * n * max(4, old.element_size())))
    for rows in changed.nonzero().squeeze(1).split(rows_at_once):
        statistic[rows] = _largest_rank_difference(_packed_keys(old, new, rows))
    return statistic


def bits_on_device(values: Tensor) -> Tensor:
    """Floats viewed as signed integers of their width, without a copy."""
    integer: torch.dtype = getattr(torch, FORMATS[dtype_of(values)].integer)
    return values.detach().view(integer)


def require_one_device(before: Tensor, after: Tensor, name: str) -> None:
    """Refuse rows that lie apart.

    Raises:
        UnitError: if the devices differ.
    """
    if before.device != after.device:
        raise UnitError(f"{name!r}: before is on {before.device}, after on {after.device}. Move both to one device.")


def refuse(before: Tensor, after: Tensor, row: int, side: str, name: str, first_row: int) -> None:
    """Raise for a row that is known to hold NaN or infinity, in the words of the CPU path.

    Args:
        before: [units, n] floats.
        after: the same.
        row: which row.
        side: "before" or "after".
        name: what the rows belong to.
        first_row: number of row 0 in the whole.

    Raises:
        UnitError: always.
    """
    values = (before if side == "before" else after)[row : row + 1]
    sorter = RowSorter(values.shape[1], dtype_of(values), name, first_row)
    sorter.require_finite(bits_on_device(values).cpu().numpy(), row, side)


def _screen(old: Tensor, new: Tensor, exponent: int) -> tuple[Tensor, Tensor, Tensor]:
    """Which rows differ in any bit, which are not finite before, which after; each [units] bool."""
    units, n = old.shape
    results = torch.zeros(3, units, dtype=torch.bool, device=old.device)
    rows = max(1, _SCREEN_VALUES // n)
    for start in range(0, units, rows):
        block = slice(start, start + rows)
        results[0, block] = (old[block] != new[block]).any(dim=1)
        results[1, block] = ((old[block] & exponent) == exponent).any(dim=1)
        results[2, block] = ((new[block] & exponent) == exponent).any(dim=1)
    changed, broken_before, broken_after = results
    return changed, broken_before, broken_after


def _packed_keys(old: Tensor, new: Tensor, rows: Tensor) -> Tensor:
    """[2, rows, n]: both sides of some rows as integers in the order of the values, -0.0 and 0.0 one key."""
    keys = old.new_empty(2, len(rows), old.shape[1])
    for side, bits in enumerate((old, new)):
        torch.index_select(bits, 0, rows, out=keys[side])
    return torch.where(keys < 0, torch.iinfo(keys.dtype).min - keys, keys)


def _largest_rank_difference(keys: Tensor) -> Tensor:
    """[rows] int64, the statistic of [2, rows, n] keys."""
    ordered = torch.sort(keys, dim=2).values
    ranks = torch.searchsorted(ordered.flip(0), ordered, out_int32=True)
    ranks -= torch.arange(keys.shape[2], dtype=torch.int32, device=keys.device)
    return ranks.amax(dim=(0, 2)).long()
