"""Kernels of the row-wise statistic for numba; `vectorised` has the same functions for numpy.

Loops that the compiler is to vectorise run over slices from zero and use one integer width throughout; a loop that
indexes `x[i + h]`, or mixes widths, runs several times slower.
"""

import numpy as np

from ks_lottery.stats.jit import kernel

_PEEK, _SEGMENT = 32, 512  # a row that changed is found out by a look at its first values, as a rule
_BLOCK, _PART, _SAMPLES = 256, 32, 64


@kernel()
def _differ(x, y):  # type: ignore[no-untyped-def]
    bits = x[0] ^ x[0]
    for i in range(len(x)):
        bits |= x[i] ^ y[i]
    return bits != 0


@kernel()
def _any_beyond(x, exponent):  # type: ignore[no-untyped-def]
    """Whether some exponent has all bits set: NaN or infinity."""
    hit = np.int8(0)
    for i in range(len(x)):
        hit |= np.int8((x[i] & exponent) == exponent)
    return hit != 0


@kernel()
def screen(before, after, exponent, changed, finite):  # type: ignore[no-untyped-def]
    """Find rows that differ, and whether the others are finite.

    Args:
        before: [rows, n] signed integers, bits of floats.
        after: the same.
        exponent: [1] of the same dtype, the exponent bits.
        changed: [rows] bool, written.
        finite: [rows] bool, written; True for changed rows, which are looked at when they are sorted.
    """
    n = before.shape[1]
    mask = exponent[0]
    for row in range(len(before)):
        changed[row] = _differ(before[row, :_PEEK], after[row, :_PEEK])
        finite[row] = True
        if changed[row]:
            continue
        for start in range(0, n, _SEGMENT):
            x = before[row, start : start + _SEGMENT]
            if _differ(x, after[row, start : start + _SEGMENT]):
                changed[row] = True
                finite[row] = True
                break
            if _any_beyond(x, mask):
                finite[row] = False


@kernel()
def _write_keys(x, most, keys):  # type: ignore[no-untyped-def]
    for i in range(len(x)):
        keys[i] = -(x[i] & most) if x[i] < 0 else x[i]


@kernel()
def pack(before, after, rows, magnitude, keys_before, keys_after):  # type: ignore[no-untyped-def]
    """Write the order-preserving keys of some rows.

    Args:
        before: [any, n] signed integers, bits of floats.
        after: the same.
        rows: [k] int64, which of them.
        magnitude: [1] of the same dtype, every bit but the sign.
        keys_before: [k, n] of the same dtype, written.
        keys_after: the same.
    """
    for k in range(len(rows)):
        _write_keys(before[rows[k]], magnitude[0], keys_before[k])
        _write_keys(after[rows[k]], magnitude[0], keys_after[k])


@kernel()
def _reaches(x, y, start, stop, h):  # type: ignore[no-untyped-def]
    """Whether a step of more than h is seen from some position in start..stop, for equally typed sorted rows."""
    x_ahead, y_here = x[start + h : stop + h], y[start:stop]
    y_ahead, x_here = y[start + h : stop + h], x[start:stop]
    hit = np.int8(0)
    for i in range(stop - start):
        hit |= np.int8(x_ahead[i] < y_here[i]) | np.int8(y_ahead[i] < x_here[i])
    return hit != 0


@kernel()
def climb(before, after, exponent, statistic):  # type: ignore[no-untyped-def]
    """Largest h with D >= h/n, for pairs of sorted rows.

    D >= h/n exactly if some i has x[i + h - 1] < y[i] or y[i + h - 1] < x[i]. h rises at sampled positions first; then
    one sweep tests blocks with the h reached so far, and only a part of a block with a higher step is walked.

    Args:
        before: [rows, n] keys, each row sorted.
        after: the same.
        exponent: [1] of the same dtype, the exponent bits: NaN and infinity have the keys from there outwards.
        statistic: [rows] int64, written; -1 where a row holds NaN or infinity.
    """
    n = before.shape[1]
    limit = exponent[0]
    for row in range(len(before)):
        x, y = before[row], after[row]
        if min(x[0], y[0]) <= -limit or max(x[n - 1], y[n - 1]) >= limit:
            statistic[row] = -1
            continue
        h = 0
        for i in range(0, n, max(1, n // _SAMPLES)):
            while i + h < n and (x[i + h] < y[i] or y[i + h] < x[i]):
                h += 1
        for block in range(0, n, _BLOCK):
            stop = min(block + _BLOCK, n - h)
            if block >= stop or not _reaches(x, y, block, stop, h):
                continue
            for part in range(block, stop, _PART):
                end = min(part + _PART, n - h)
                if part < end and _reaches(x, y, part, end, h):
                    i = part
                    while i < part + _PART and i + h < n:
                        if x[i + h] < y[i] or y[i + h] < x[i]:
                            h += 1
                        else:
                            i += 1
        statistic[row] = h


@kernel()
def count_changed(before, after, rows, count):  # type: ignore[no-untyped-def]
    """Number of values of some rows whose bits differ.

    Args:
        before: [any, n] signed integers.
        after: the same.
        rows: [k] int64, which of them.
        count: [k] int64, written.
    """
    for k in range(len(rows)):
        x, y = before[rows[k]], after[rows[k]]
        changed = np.int32(0)
        for i in range(len(x)):
            changed += np.int32(x[i] != y[i])
        count[k] = changed


@kernel(fastmath={"reassoc", "contract"})
def squared_norms(values, total):  # type: ignore[no-untyped-def]
    """Sum of squares of each row; values [rows, n] float32 or float64, total [rows] float64, written."""
    for row in range(len(values)):
        x = values[row]
        squares = 0.0
        for i in range(len(x)):
            squares += np.float64(x[i]) * np.float64(x[i])
        total[row] = squares


@kernel(fastmath={"reassoc", "contract"})
def squared_norms_bfloat16(bits, total):  # type: ignore[no-untyped-def]
    """Sum of squares of each row of bfloat16; bits [rows, n] int16, total [rows] float64, written."""
    for row in range(len(bits)):
        x = bits[row]
        squares = 0.0
        for i in range(len(x)):
            value = np.float64(np.int32(np.int32(x[i]) << np.int32(16)).view(np.float32))
            squares += value * value
        total[row] = squares


@kernel(fastmath={"reassoc", "contract"})
def squared_moves(before, after, total):  # type: ignore[no-untyped-def]
    """Sum of squares of after - before; both [rows, n] float32 or float64, total [rows] float64, written."""
    for row in range(len(before)):
        x, y = before[row], after[row]
        squares = 0.0
        for i in range(len(x)):
            move = np.float64(y[i]) - np.float64(x[i])
            squares += move * move
        total[row] = squares
