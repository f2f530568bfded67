"""Kernels of the radix descent for numpy, with the results of `topk_compiled`."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIGIT_BITS = 16
_BLOCK = 2**17  # numbers taken at once
_SIGN, _MAGNITUDE = np.uint64(2**63), np.int64(2**63 - 1)
_LOW_BITS = np.uint64(2**DIGIT_BITS - 1)

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
Places = NDArray[np.int64]


def count_digits(
    values: Floats, allowed: Bools, low: np.float64, high: np.float64, shift: np.uint64, counts: Places
) -> int:
    """Add 16 bits of the keys of numbers from `low` to `high` to `counts`; as `topk_compiled.count_digits`."""
    for start, block, takes_part in _blocks(values, allowed):
        nan = np.isnan(block) & takes_part
        if nan.any():
            return start + int(nan.argmax())
        inside = block[(block >= low) & (block <= high) & takes_part]
        digits = (_keys(inside) >> shift) & _LOW_BITS
        counts += np.bincount(digits.astype(np.int64), minlength=2**DIGIT_BITS)
    return -1


def count_places(values: Floats, allowed: Bools, low: np.float64, high: np.float64) -> tuple[int, int]:
    """How many numbers are above `high`, and how many lie from `low` to `high`; as `topk_compiled.count_places`."""
    above = inside = 0
    for _, block, takes_part in _blocks(values, allowed):
        above += int(((block > high) & takes_part).sum())
        inside += int(((block >= low) & (block <= high) & takes_part).sum())
    return above, inside


def place_above(values: Floats, allowed: Bools, low: np.float64, high: np.float64, tied: int, places: Places) -> int:
    """Write the positions above `high` and the first `tied` from `low` to `high`; as `topk_compiled.place_above`."""
    found = 0
    for start, block, takes_part in _blocks(values, allowed):
        ties = np.flatnonzero((block >= low) & (block <= high) & takes_part)[:tied]
        taken = (block > high) & takes_part
        taken[ties] = True
        here = np.flatnonzero(taken)
        places[found : found + len(here)] = here + start
        found, tied = found + len(here), tied - len(ties)
    return found


def place_inside(values: Floats, allowed: Bools, low: np.float64, high: np.float64, places: Places) -> int:
    """Write the positions of what lies from `low` to `high`; as `topk_compiled.place_inside`."""
    found = 0
    for start, block, takes_part in _blocks(values, allowed):
        here = np.flatnonzero((block >= low) & (block <= high) & takes_part)
        places[found : found + len(here)] = here + start
        found += len(here)
    return found


def _blocks(values: Floats, allowed: Bools) -> Iterator[tuple[int, NDArray[np.float64], Bools | np.bool_]]:
    """(first position, numbers, which take part) of one block after the other."""
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK].astype(np.float64)
        yield start, block, np.True_ if not len(allowed) else allowed[start : start + _BLOCK]


def _keys(values: NDArray[np.float64]) -> NDArray[np.uint64]:
    """[n] unsigned integers in the order of the numbers, -0.0 and 0.0 one key."""
    bits = values.view(np.int64)
    sign = bits >> np.int64(63)
    return (((bits & _MAGNITUDE) ^ sign) - sign).view(np.uint64) ^ _SIGN
