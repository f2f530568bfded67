"""Which rows cannot reach a threshold of the statistic, found by counting in bins instead of sorting.

Where a level and a correction are fixed, only rows with h >= h_crit matter (`pvalues.critical_statistic`), and few rows
of a fine-tuned matrix come near it. Both sides are counted in the same bins. Say A values of before and B of after lie
left of a bin that holds a and b: up to any value inside it, before counts A to A + a and after B to B + b. So no h
exceeds the largest of max(A + a - B, B + b - A) over the bins.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ks_lottery.errors import UnitError
from ks_lottery.stats.floats import FORMATS, FloatBits
from ks_lottery.stats.jit import can_compile, kernel

_BLOCK_VALUES = 2**18  # of one side: what is rounded from float64, or counted by numpy, at once
_SAMPLES = 32  # values of a row that place its bins
_REACH = 5.0  # mean absolute deviations to either side that the bins cover: 4 sigma of normal values
_NARROWEST = 1e-30
_MOST_BINS = 2**12


@dataclass(frozen=True, slots=True)
class _Widening:
    """How the bits of a dtype become float32: shifted left, these of them kept, and the value times the factor."""

    shift: int = 0
    keep: int = -1
    factor: float = 1.0


_WIDENING = {
    "float16": _Widening(13, ~0x70000000, 2.0**112),
    "bfloat16": _Widening(16),
    "float32": _Widening(),
}


def settled_below(before: FloatBits, after: FloatBits, h_crit: int) -> NDArray[np.bool_]:
    """Rows whose statistic is proven to lie below a threshold, without sorting them.

    Args:
        before: [units, n] bits, n at least 1.
        after: the same shape and dtype.
        h_crit: threshold of the integer statistic h = D * n.

    Returns:
        [units] bool. True: h < h_crit for certain. False: not known. A row that holds NaN, infinity or a value beyond
        float32 is never settled, so whoever sorts the others meets it.

    Raises:
        UnitError: if shapes or dtypes differ, or a row has no value.

    Cost:
        O(units * n), about a third of sorting both sides; at most 8 MiB beyond the inputs, or a few times
        one row where that is more.

    Source:
        Ours. A few values of `before` place the bins; the bound holds for any non-decreasing map to bins.
    """
    _require_pairs(before, after)
    units, n = before.shape
    settled = np.empty(units, dtype=np.bool_)
    rows = max(1, _BLOCK_VALUES // n)
    for start in range(0, units, rows):
        block = slice(start, start + rows)
        x, y = _at_most_single(before[block]), _at_most_single(after[block])
        if can_compile():
            to = _WIDENING[x.dtype]
            _compiled()(
                np.ascontiguousarray(x.array),
                np.ascontiguousarray(y.array),
                np.int32(FORMATS[x.dtype].exponent),
                np.int32(to.shift),
                np.int32(to.keep),
                np.float32(to.factor),
                bin_count(n),
                h_crit,
                settled[block],
            )
        else:
            settled[block] = _below_in_numpy(x, y, bin_count(n), h_crit)
    return settled


def bin_count(n: int) -> int:
    """Bins for rows of n values: a power of two near n / 4, from 16 to 4096; then a central bin has about 10 values."""
    return min(_MOST_BINS, max(16, 1 << (n // 4 - 1).bit_length()))


def _require_pairs(before: FloatBits, after: FloatBits) -> None:
    if before.shape != after.shape or before.dtype != after.dtype or len(before.shape) != 2 or not before.shape[1]:
        raise UnitError(
            f"before has shape {before.shape} and dtype {before.dtype}, after {after.shape} and {after.dtype}, but "
            "both must be [units, n] of one dtype with n at least 1. Reshape them to one unit per row, in the narrower "
            "dtype."
        )


def _at_most_single(bits: FloatBits) -> FloatBits:
    """Float64 rounded to float32, which keeps the order of values; other dtypes as they are."""
    if bits.dtype != "float64":
        return bits
    with np.errstate(over="ignore"):
        return FloatBits(bits.values().astype(np.float32).view(np.int32), "float32")


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., None]:
    return kernel()(_below)


def _below(before, after, exponent, shift, keep, factor, bins, h_crit, settled):  # type: ignore[no-untyped-def]
    """Whether no h reaches h_crit, for numba; before and after [rows, n] bits, settled [rows] bool, written.

    The loop that computes positions is vectorised by the compiler, as long as it does not count and no integer in it is
    wider than 32 bits, which is what the casts are for.
    """
    n = before.shape[1]
    step = max(1, n // _SAMPLES)
    samples = (n + step - 1) // step
    zero, top = np.float32(0), np.float32(bins - 1)
    position_a, position_b = np.empty(n, dtype=np.uint16), np.empty(n, dtype=np.uint16)
    counts_a, counts_b, left = np.empty(bins, np.int32), np.empty(bins, np.int32), np.empty(bins, np.int32)
    sample = np.empty(samples, dtype=np.float64)
    for row in range(len(before)):
        mean, deviation = 0.0, 0.0
        for i in range(samples):
            widened = np.int32(np.int32(np.int32(before[row, i * step]) << shift) & keep)
            sample[i] = widened.view(np.float32) * factor
            mean += sample[i]
        mean /= samples
        for i in range(samples):
            deviation += abs(sample[i] - mean)
        half = max(_NARROWEST, _REACH * (deviation / samples))
        low, scale = np.float32(mean - half), np.float32(bins / (2.0 * half))
        wild = np.int32(0)
        for side in range(2):
            x, position = (before[row], position_a) if side == 0 else (after[row], position_b)
            for i in range(n):
                bits = np.int32(x[i])
                wild = np.int32(wild | np.int32(np.int32(bits & exponent) == exponent))
                widened = np.int32(np.int32(bits << np.int32(shift & np.int32(31))) & keep)
                value = widened.view(np.float32) * factor
                place = (value - low) * scale
                place = place if place > zero else zero
                position[i] = np.int32(place if place < top else top)
        counts_a[:] = 0
        counts_b[:] = 0
        for i in range(n):
            counts_a[np.uint64(position_a[i])] += 1
            counts_b[np.uint64(position_b[i])] += 1
        excess, bound = np.int32(0), np.int32(0)
        for i in range(bins):
            left[i] = excess
            excess = np.int32(excess + np.int32(counts_a[i] - counts_b[i]))
        for i in range(bins):
            in_bin = max(np.int32(left[i] + counts_a[i]), np.int32(counts_b[i] - left[i]))
            bound = np.int32(max(bound, np.int32(in_bin)))
        settled[row] = bound < h_crit and wild == 0


def _below_in_numpy(before: FloatBits, after: FloatBits, bins: int, h_crit: int) -> NDArray[np.bool_]:
    """Whether no h reaches h_crit; the bins lie as in `_below`, to the last bit."""
    units, n = before.shape
    first_bin = bins * np.arange(units)[:, None]
    counts = []
    with np.errstate(over="ignore", invalid="ignore"):
        # cumsum adds from left to right, as the compiled loop does; sum does not.
        sample = before[:, :: max(1, n // _SAMPLES)].values().astype(np.float64)
        mean = sample.cumsum(axis=1)[:, -1:] / sample.shape[1]
        deviation = np.abs(sample - mean).cumsum(axis=1)[:, -1:] / sample.shape[1]
        half = np.fmax(_NARROWEST, _REACH * deviation)
        low, scale = (mean - half).astype(np.float32), (bins / (2.0 * half)).astype(np.float32)
        for side in (before, after):
            place = (side.values().astype(np.float32) - low) * scale
            position = first_bin + np.fmin(np.fmax(place, 0), bins - 1).astype(np.int64)
            counts.append(np.bincount(position.ravel(), minlength=units * bins).reshape(units, bins))
    (in_a, in_b), (right_a, right_b) = counts, (count.cumsum(axis=1) for count in counts)
    bound = np.maximum(right_a - (right_b - in_b), right_b - (right_a - in_a)).max(axis=1)
    settled: NDArray[np.bool_] = (bound < h_crit) & before.finite().all(axis=1) & after.finite().all(axis=1)
    return settled
