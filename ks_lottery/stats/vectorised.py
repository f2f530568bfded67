"""Kernels of the row-wise statistic for numpy, with the results of `compiled`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[Any]
Floats = NDArray[np.floating]


def screen(
    before: Integers, after: Integers, masks: Integers, changed: NDArray[np.bool_], finite: NDArray[np.bool_]
) -> None:
    """Find rows that differ, and whether the others are finite; as `compiled.screen`."""
    exponent, lowest, signs = masks
    changed[:] = (before != after).any(axis=1)
    finite[:] = True
    same = ~changed
    finite[same] = ((((before[same] & exponent) + lowest) & signs) == 0).all(axis=1)


def pack(
    before: Integers,
    after: Integers,
    rows: NDArray[np.int64],
    magnitude: Integers,
    keys_before: Integers,
    keys_after: Integers,
) -> None:
    """Write the order-preserving keys of some rows; as `compiled.pack`."""
    for values, keys in ((before, keys_before), (after, keys_after)):
        bits = values[rows]
        np.copyto(keys, bits)
        np.negative(bits & magnitude, out=keys, where=bits < 0)


def climb(before: Integers, after: Integers, exponent: Integers, statistic: NDArray[np.int64]) -> None:
    """Largest h with D >= h/n, for pairs of sorted rows; as `compiled.climb`.

    Bisection on h: all rows whose h lies between the same bounds are compared at once.
    """
    pending = [(np.arange(len(before)), before, after, 0, before.shape[1])]
    while pending:
        rows, x, y, low, high = pending.pop()
        if low == high:
            statistic[rows] = low
            continue
        h = (low + high + 1) // 2
        reached = (x[:, h - 1 :] < y[:, : y.shape[1] - h + 1]).any(axis=1)
        reached |= (y[:, h - 1 :] < x[:, : x.shape[1] - h + 1]).any(axis=1)
        for part, bounds in ((reached, (h, high)), (~reached, (low, h - 1))):
            if part.all():
                pending.append((rows, x, y, *bounds))
            elif part.any():
                pending.append((rows[part], x[part], y[part], *bounds))
    ends = np.abs(np.concatenate((before[:, [0, -1]], after[:, [0, -1]]), axis=1))
    statistic[(ends >= exponent).any(axis=1)] = -1


def compare(
    before: Integers, after: Integers, values: Floats, changed: NDArray[np.bool_], norm: NDArray[np.float64]
) -> None:
    """Find rows that differ, and add up squares; as `compiled.compare`, up to the order of the additions."""
    changed |= (before != after).any(axis=1)
    norm += np.square(values, dtype=np.float64).sum(axis=1)


def compare_bfloat16(before: Integers, after: Integers, changed: NDArray[np.bool_], norm: NDArray[np.float64]) -> None:
    """As `compiled.compare_bfloat16`, up to the order of the additions."""
    compare(before, after, _widened(before), changed, norm)


def moves(
    before: Integers,
    after: Integers,
    old: Floats,
    new: Floats,
    rows: NDArray[np.int64],
    count: NDArray[np.int64],
    shift: NDArray[np.float64],
) -> None:
    """How many values of some rows moved, and how far; as `compiled.moves`, up to the order of the additions."""
    count += (before[rows] != after[rows]).sum(axis=1)
    shift += np.square(np.subtract(new[rows], old[rows], dtype=np.float64)).sum(axis=1)


def moves_bfloat16(
    before: Integers,
    after: Integers,
    rows: NDArray[np.int64],
    count: NDArray[np.int64],
    shift: NDArray[np.float64],
) -> None:
    """As `compiled.moves_bfloat16`, up to the order of the additions."""
    x, y = before[rows], after[rows]
    moves(x, y, _widened(x), _widened(y), np.arange(len(rows)), count, shift)


def _widened(bits: Integers) -> NDArray[np.float32]:
    """Values of bits of bfloat16."""
    return (bits.astype(np.int32) << 16).view(np.float32)
