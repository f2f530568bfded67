"""Kernels of the radix descent for numba; `topk_vectorised` has the same functions for numpy.

A mask without entries is True everywhere. Comparisons with `low` and `high`, which are float64, sort out most numbers;
keys are unsigned throughout, because numba turns integers of mixed signs into floats.
"""

import numpy as np

from ks_lottery.stats.jit import kernel

_SIGN, _MAGNITUDE = np.uint64(2**63), np.int64(2**63 - 1)
_LOW_BITS = np.uint64(2**16 - 1)


@kernel()
def _key_of(value):  # type: ignore[no-untyped-def]
    bits = np.float64(value).view(np.int64)
    sign = bits >> np.int64(63)
    return np.uint64(((bits & _MAGNITUDE) ^ sign) - sign) ^ _SIGN


@kernel()
def count_digits(values, allowed, low, high, shift, counts):  # type: ignore[no-untyped-def]
    """Add 16 bits of the keys of numbers from `low` to `high` to `counts`; returns the position of a NaN, or -1."""
    every = len(allowed) == 0
    for i in range(len(values)):
        value = np.float64(values[i])
        if low <= value <= high:
            if every or allowed[i]:
                counts[(_key_of(value) >> shift) & _LOW_BITS] += 1
        elif value != value and (every or allowed[i]):
            return i
    return -1


@kernel()
def count_places(values, allowed, low, high):  # type: ignore[no-untyped-def]
    """How many numbers are above `high`, and how many lie from `low` to `high`."""
    above = inside = np.int64(0)
    if len(allowed) == 0:
        for i in range(len(values)):
            value = np.float64(values[i])
            above += np.int64(value > high)
            inside += np.int64((value >= low) & (value <= high))
    else:
        for i in range(len(values)):
            value = np.float64(values[i])
            above += np.int64((value > high) & allowed[i])
            inside += np.int64((value >= low) & (value <= high) & allowed[i])
    return above, inside


@kernel()
def place_above(values, allowed, low, high, tied, places):  # type: ignore[no-untyped-def]
    """Write the positions of what is above `high` and the first `tied` from `low` to `high`; returns how many."""
    every = len(allowed) == 0
    found = np.int64(0)
    for i in range(len(values)):
        value = np.float64(values[i])
        takes_part = every or allowed[i]
        ties = np.int64((value >= low) & (value <= high) & takes_part & (tied > 0))
        places[found] = i  # overwritten if it is not taken
        found += ties + np.int64((value > high) & takes_part)
        tied -= ties
    return found


@kernel()
def place_inside(values, allowed, low, high, places):  # type: ignore[no-untyped-def]
    """Write the positions of what lies from `low` to `high`; returns how many."""
    every = len(allowed) == 0
    found = np.int64(0)
    for i in range(len(values)):
        value = np.float64(values[i])
        places[found] = i
        found += np.int64((value >= low) & (value <= high) & (every or allowed[i]))
    return found
