"""Two-sample Kolmogorov-Smirnov statistic of many pairs of rows, as an exact integer."""

from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from ks_lottery.errors import UnitError

Matrix = TypeVar("Matrix", torch.Tensor, np.ndarray)

MIN_VALUES_PER_UNIT = 8
_CHUNK_VALUES = 2**19  # per side: sorted copies and what the climb splits off stay below 64 MiB in float64 too
_BITS_DTYPE = {"float16": "int16", "bfloat16": "int16", "float32": "int32", "float64": "int64"}
_EXPONENT_BITS = {"float16": 0x7C00, "bfloat16": 0x7F80}


def two_sample_statistic(before: Matrix, after: Matrix, *, name: str = "rows", first_row: int = 0) -> Matrix:
    """Two-sample Kolmogorov-Smirnov statistic, one test per row.

    D sees a row as a multiset of values: a permuted row has D = 0. Before and after are paired, so D is an effect
    size; see `pvalues`.

    Args:
        before: [units, n] float16, bfloat16, float32 or float64, torch or numpy; weight values, unnormalised, any
            strides, any device.
        after: the same kind, shape and dtype.
        name: what the rows belong to, for error messages.
        first_row: number of the first row in the whole that these rows are a piece of, for error messages.

    Returns:
        [units] int64 of the kind and on the device of `before`: h with D = h / n, exact under ties; -0.0 equals 0.0.

    Raises:
        UnitError: if n < 8, kinds, shapes or dtypes differ, the dtype is another one, or a value is NaN or infinite
            (the row is named).

    Cost:
        O(units * n log n) time; at most 64 MiB beyond the inputs, or a few times one row where that is more.
        Bit-identical rows cost one comparison.

    Source:
        Yuan et al. 2025 (KS-Lottery), section on the KS test; Gnedenko & Korolyuk 1951 for equal samples.
    """
    dtype = _check(before, after, name)
    units, n = before.shape
    statistic = np.zeros(units, dtype=np.int64)
    rows_per_chunk = max(1, _CHUNK_VALUES // n)
    for start in range(0, units, rows_per_chunk):
        bits_before = _bits(before[start : start + rows_per_chunk], dtype)
        bits_after = _bits(after[start : start + rows_per_chunk], dtype)
        rows = np.arange(start, start + len(bits_before))
        _refuse_non_finite(bits_before, dtype, first_row + rows, f"{name!r} before")
        changed = (bits_before != bits_after).any(axis=1)
        if changed.any():
            rows, bits_before, bits_after = rows[changed], bits_before[changed], bits_after[changed]
            _refuse_non_finite(bits_after, dtype, first_row + rows, f"{name!r} after")
            statistic[rows] = _climb(_sorted_keys(bits_before, dtype), _sorted_keys(bits_after, dtype))
    return torch.from_numpy(statistic).to(before.device) if isinstance(before, torch.Tensor) else statistic


def _check(before: Matrix, after: Matrix, name: str) -> str:
    """Refuse what cannot be compared; return the name of the common dtype."""
    kinds = ["torch tensor" if isinstance(rows, torch.Tensor) else type(rows).__name__ for rows in (before, after)]
    if kinds[0] != kinds[1]:
        raise UnitError(f"{name!r}: before is a {kinds[0]}, after a {kinds[1]}. Pass two of one kind.")
    if tuple(before.shape) != tuple(after.shape) or before.ndim != 2:
        raise UnitError(
            f"{name!r}: before and after must both have shape [units, n], got {tuple(before.shape)} and "
            f"{tuple(after.shape)}. Reshape them to one unit per row, and drop rows that only one of them has."
        )
    dtypes = [str(rows.dtype).removeprefix("torch.") for rows in (before, after)]
    if dtypes[0] != dtypes[1]:
        raise UnitError(
            f"{name!r}: before is {dtypes[0]}, after {dtypes[1]}. Rounding alone would shift the distribution: "
            "cast both to the narrower dtype."
        )
    if dtypes[0] not in _BITS_DTYPE:
        raise UnitError(f"{name!r}: dtype {dtypes[0]} has no KS test here. Cast to one of: {', '.join(_BITS_DTYPE)}.")
    if before.shape[1] < MIN_VALUES_PER_UNIT:
        raise UnitError(
            f"{name!r}: the KS test compares distributions and needs at least {MIN_VALUES_PER_UNIT} values per unit, "
            f"got {before.shape[1]}. Use larger units, or a finder that scores single values ('magnitude')."
        )
    return dtypes[0]


def _bits(rows: torch.Tensor | NDArray[Any], dtype: str) -> NDArray[Any]:
    """The bit patterns of a few rows, as signed integers on the CPU."""
    if isinstance(rows, torch.Tensor):
        bits: NDArray[Any] = rows.detach().cpu().view(getattr(torch, _BITS_DTYPE[dtype])).numpy()
        return bits
    return rows.view(_BITS_DTYPE[dtype])


def _refuse_non_finite(bits: NDArray[Any], dtype: str, rows: NDArray[np.int64], where: str) -> None:
    """Raise for the first NaN or infinity; `rows` are the numbers of these rows in the whole matrix."""
    if dtype in _EXPONENT_BITS:
        finite = (bits & _EXPONENT_BITS[dtype]) != _EXPONENT_BITS[dtype]
    else:
        finite = np.isfinite(bits.view(dtype))
    if not finite.all():
        row, position = np.argwhere(~finite)[0]
        count = int((~finite[row]).sum())
        raise UnitError(
            f"Row {rows[row]} of {where} holds {count} NaN or infinite value(s), the first at position {position}. "
            "Leave the row out, or use a checkpoint whose training did not diverge."
        )


def _sorted_keys(bits: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Each row sorted: floats as they are; 16-bit floats as int16 of the same order, in which -0.0 and 0.0 are one."""
    if dtype in _EXPONENT_BITS:
        keys = np.where(bits < 0, -(bits & 0x7FFF), bits)
        keys.sort(axis=1, kind="stable")
        return keys
    keys = np.array(bits.view(dtype))
    keys.sort(axis=1)
    return keys


def _climb(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.int64]:
    """Largest h with D >= h/n for each pair of sorted rows.

    D >= h/n exactly if some i has a[i + h - 1] < b[i] or b[i + h - 1] < a[i]; the strict comparison keeps ties exact.
    Bisection on h: all rows whose h lies between the same bounds are compared at once.

    Args:
        a: [rows, n], each row sorted.
        b: the same.

    Returns:
        [rows] int64.
    """
    statistic = np.empty(len(a), dtype=np.int64)
    pending = [(np.arange(len(a)), a, b, 0, a.shape[1])]
    while pending:
        rows, a, b, low, high = pending.pop()
        if low == high:
            statistic[rows] = low
            continue
        h = (low + high + 1) // 2
        reached = (a[:, h - 1 :] < b[:, : b.shape[1] - h + 1]).any(axis=1)
        reached |= (b[:, h - 1 :] < a[:, : a.shape[1] - h + 1]).any(axis=1)
        for part, bounds in ((reached, (h, high)), (~reached, (low, h - 1))):
            if part.all():
                pending.append((rows, a, b, *bounds))
            elif part.any():
                pending.append((rows[part], a[part], b[part], *bounds))
    return statistic
