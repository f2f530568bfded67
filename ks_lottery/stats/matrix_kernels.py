"""Loops over the values of a matrix: for numba, and for numpy with the same results."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ks_lottery.stats.jit import can_compile, kernel

BLOCK = 2**17  # values that a loop takes at once: few enough for the cache, enough to keep threads apart
TAKEN = 2**15  # what is taken out of a count when it is reached
WIDTH_BITS, WIDTH = np.uint32(6), np.uint32(63)


@dataclass(frozen=True)
class Kernels:
    """The loops over values, compiled or in numpy; both give the same integers."""

    screen: Callable[..., tuple[int, int]]
    count_uncut: Callable[..., int]
    count: Callable[..., int]
    sift: Callable[..., int]
    pick: Callable[..., int]
    walk: Callable[..., int]
    peak: Callable[..., int]


@lru_cache(maxsize=1)
def kernels() -> Kernels:
    """The compiled kernels, or numpy's where nothing can be compiled."""
    if can_compile():
        return Kernels(*(kernel()(loop) for loop in (_screen, _count_uncut, _count, _sift, _pick, _walk, _peak)))
    return VECTORISED


def _screen(x, y, exponent):  # type: ignore[no-untyped-def]
    """Compare two blocks of bits, each [k].

    Returns:
        A number other than 0 if any bit differs, and the largest exponent, in place.
    """
    differing, largest = exponent ^ exponent, exponent ^ exponent
    for i in range(len(x)):
        differing |= x[i] ^ y[i]
        largest = max(largest, x[i] & exponent, y[i] & exponent)
    return differing, largest


def _count_uncut(values, magnitude, shift, counts, step, full):  # type: ignore[no-untyped-def]
    """Count values into bins of upper bits; arguments as `_count`."""
    limit = step << np.uint32(15)
    found = 0
    for i in range(len(values)):
        value = np.int64(values[i])
        sign = value >> 63
        bin_ = np.uint64(((value & magnitude) ^ sign) - sign + magnitude + 1) >> shift
        count = counts[bin_] + step
        if count & limit:
            count ^= limit
            full[found] = np.int64(bin_)
            found += 1
        counts[bin_] = count
    return found


def _count(values, others, paired, magnitude, shift, table, depth, counts, step, full):  # type: ignore[no-untyped-def]
    """Count values into bins.

    Args:
        values: [k] signed integers, bits of floats.
        others: [k] the other sample's bits.
        paired: whether values that equal the others' are left out.
        magnitude: int64, every bit of a value but its sign.
        shift: uint64, number of lower bits; the others choose among the bins that were cut first.
        table: [entries] uint32 of `KeyBins`.
        depth: number of cuts, at least 1.
        counts: [bins] uint32, written.
        step: uint32, 1 for the lower 16 bits of a count, or 2**16.
        full: [k] int64, written: bins from whose count 2**15 was taken.

    Returns:
        Number of entries in `full`.
    """
    below, last = (np.uint64(1) << shift) - np.uint64(1), np.uint64(len(table))
    limit = step << np.uint32(15)
    found = 0
    for i in range(len(values)):
        value = np.int64(values[i])
        if paired and value == others[i]:
            continue
        sign = value >> 63
        rest = np.uint64(((value & magnitude) ^ sign) - sign + magnitude + 1)
        entry = table[rest >> shift]
        rest &= below
        place = np.uint64(entry >> WIDTH_BITS) + (rest >> np.uint64(entry & WIDTH))
        for _ in range(depth - 1):
            rest &= (np.uint64(1) << np.uint64(entry & WIDTH)) - np.uint64(1)
            entry = table[place]
            place = np.uint64(entry >> WIDTH_BITS) + (rest >> np.uint64(entry & WIDTH))
        bin_ = place - last
        count = counts[bin_] + step
        if count & limit:
            count ^= limit
            full[found] = np.int64(bin_)
            found += 1
        counts[bin_] = count
    return found


def _sift(values, others, paired, upper_bits, shift, kept):  # type: ignore[no-untyped-def]
    """Copy values that have certain upper bits and, if paired, differ from the others'; returns how many."""
    zero = len(upper_bits) // 2
    found = 0
    for i in range(len(values)):
        value = np.int64(values[i])
        kept[found] = value
        found += upper_bits[np.uint64((value >> np.int64(shift)) + zero)] & ((not paired) | (value != others[i]))
    return found


def _pick(values, magnitude, shift, table, depth, wanted):  # type: ignore[no-untyped-def]
    """Put the keys of values in wanted bins in front, arguments as `_count`, wanted [bins] bool; returns how many."""
    below, last = (np.uint64(1) << shift) - np.uint64(1), np.uint64(len(table))
    found = 0
    for i in range(len(values)):
        value = np.int64(values[i])
        sign = value >> 63
        key = ((value & magnitude) ^ sign) - sign
        rest = np.uint64(key + magnitude + 1)
        entry = table[rest >> shift]
        rest &= below
        place = np.uint64(entry >> WIDTH_BITS) + (rest >> np.uint64(entry & WIDTH))
        for _ in range(depth - 1):
            rest &= (np.uint64(1) << np.uint64(entry & WIDTH)) - np.uint64(1)
            entry = table[place]
            place = np.uint64(entry >> WIDTH_BITS) + (rest >> np.uint64(entry & WIDTH))
        values[found] = key
        found += wanted[place - last]
    return found


def _walk(x, y, x_ends, y_ends, base, x_step, y_step):  # type: ignore[no-untyped-def]
    """Largest absolute height inside some bins; numba compiles it.

    Args:
        x: sorted keys of the first sample in all of the bins.
        y: the same of the second.
        x_ends: [bins] int64, where in `x` each bin ends.
        y_ends: the same in `y`.
        base: [bins] int64, the height below each bin.
        x_step: by how much a value of the first sample raises it.
        y_step: by how much a value of the second lowers it.
    """
    largest = np.int64(0)
    i = j = 0
    for bin_ in range(len(base)):
        height = base[bin_]
        while i < x_ends[bin_] or j < y_ends[bin_]:
            key = x[i] if j == y_ends[bin_] or (i < x_ends[bin_] and x[i] < y[j]) else y[j]
            while i < x_ends[bin_] and x[i] == key:
                height += x_step
                i += 1
            while j < y_ends[bin_] and y[j] == key:
                height -= y_step
                j += 1
            largest = max(largest, abs(height))
    return largest


def _peak(taken, tables, x_step, y_step):  # type: ignore[no-untyped-def]
    """Largest absolute height at the edges of bins.

    Args:
        taken: [2, bins] int64, the part of both samples' counts that all threads share.
        tables: [threads, bins] uint32, the other part: the first sample in the lower 16 bits.
        x_step: by how much a value of the first sample raises the height.
        y_step: by how much a value of the second lowers it.
    """
    height = largest = np.int64(0)
    for bin_ in range(taken.shape[1]):
        x, y = taken[0, bin_], taken[1, bin_]
        for thread in range(len(tables)):
            count = np.int64(tables[thread, bin_])
            x += count & 0xFFFF
            y += count >> 16
        height += x_step * x - y_step * y
        largest = max(largest, abs(height))
    return largest


def _located(values, magnitude, shift, table, depth):  # type: ignore[no-untyped-def]
    """Keys of values, and their bins."""
    value = values.astype(np.int64)
    key = np.where(value < 0, -(value & magnitude), value)
    rest = (key + magnitude + 1).view(np.uint64)
    place, width = rest >> shift, shift
    for _ in range(depth):
        rest = rest & ((np.uint64(1) << width) - np.uint64(1))
        entry = table[place]
        width = (entry & WIDTH).astype(np.uint64)
        place = (entry >> WIDTH_BITS).astype(np.uint64) + (rest >> width)
    return key, place - np.uint64(len(table))


def _screen_vectorised(x, y, exponent):  # type: ignore[no-untyped-def]
    return int((x != y).any()), max((x & exponent).max(), (y & exponent).max())


def _count_bins(bins, counts, step, full):  # type: ignore[no-untyped-def]
    limit = step << np.uint32(15)
    found = 0
    for start in range(0, len(bins), TAKEN):  # 16 bits hold a count below 2**15, and so many more
        some = bins[start : start + TAKEN]
        np.add.at(counts, some, step)
        over = np.unique(some[(counts[some] & limit) != 0])
        counts[over] ^= limit
        full[found : found + len(over)] = over
        found += len(over)
    return found


def _count_uncut_vectorised(values, magnitude, shift, counts, step, full):  # type: ignore[no-untyped-def]
    _, bins = _located(values, magnitude, shift, np.empty(0), 0)
    return _count_bins(bins, counts, step, full)


def _count_vectorised(values, others, paired, *arguments):  # type: ignore[no-untyped-def]
    *placement, counts, step, full = arguments
    _, bins = _located(values[values != others] if paired else values, *placement)
    return _count_bins(bins, counts, step, full)


def _sift_vectorised(values, others, paired, upper_bits, shift, kept):  # type: ignore[no-untyped-def]
    chosen = upper_bits[(values.astype(np.int64) >> np.int64(shift)) + len(upper_bits) // 2]
    found = values[chosen & (values != others)] if paired else values[chosen]
    kept[: len(found)] = found
    return len(found)


def _pick_vectorised(values, *arguments):  # type: ignore[no-untyped-def]
    *placement, wanted = arguments
    key, bins = _located(values, *placement)
    picked = key[wanted[bins]]
    values[: len(picked)] = picked
    return len(picked)


def _walk_vectorised(x, y, x_ends, y_ends, base, x_step, y_step):  # type: ignore[no-untyped-def]
    """As `_walk`, in integers of any size if `base` holds Python's.

    The height is largest after some value of `x` and smallest after some value of `y`; what is computed after an
    earlier one of equal values lies nearer to zero.
    """
    largest = 0
    x_starts, y_starts = (np.append(0, ends[:-1]).astype(base.dtype) for ends in (x_ends, y_ends))
    offset = base - x_step * x_starts + y_step * y_starts
    for sign, mine, ends, step, others, other_step in (
        (1, x, x_ends, x_step, y, y_step),
        (-1, y, y_ends, y_step, x, x_step),
    ):
        for start in range(0, len(mine), BLOCK):
            place = np.arange(start, min(start + BLOCK, len(mine)))
            below = np.searchsorted(others, mine[place], side="right").astype(base.dtype)
            bin_ = np.searchsorted(ends, place, side="right")
            height = sign * offset[bin_] + step * (place + 1).astype(base.dtype) - other_step * below
            largest = max(largest, int(height.max()))
    return largest


def _peak_vectorised(taken, tables, x_step, y_step):  # type: ignore[no-untyped-def]
    x = taken[0] + (tables & np.uint32(0xFFFF)).sum(axis=0, dtype=np.int64)
    y = taken[1] + (tables >> np.uint32(16)).sum(axis=0, dtype=np.int64)
    return int(np.abs(np.cumsum(x_step * x - y_step * y)).max())


VECTORISED = Kernels(
    _screen_vectorised,
    _count_uncut_vectorised,
    _count_vectorised,
    _sift_vectorised,
    _pick_vectorised,
    _walk_vectorised,
    _peak_vectorised,
)
