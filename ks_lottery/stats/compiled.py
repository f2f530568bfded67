"""Kernels of the row-wise statistic for numba; `vectorised` has the same functions for numpy.

Loops that the compiler is to vectorise run over slices from zero and use one integer width throughout; a loop that
indexes `x[i + h]`, or mixes widths, runs several times slower.
"""

import numpy as np

from ks_lottery.stats.jit import kernel

_PEEK, _SEGMENT = 8, 512  # a row that changed is found out by a look at its first values, as a rule
_BLOCK, _PART, _SAMPLES = 256, 32, 64


@kernel()
def _differ(x, y):  # type: ignore[no-untyped-def]
    bits = x[0] ^ x[0]
    for i in range(len(x)):
        bits |= x[i] ^ y[i]
    return bits != 0


@kernel()
def _look(x, y, exponent, lowest):  # type: ignore[no-untyped-def]
    """Whether two runs of words differ; and a word whose signs are set where an exponent in `x` has all bits set."""
    bits, over = x[0] ^ x[0], x[0] ^ x[0]
    for i in range(len(x)):
        bits |= x[i] ^ y[i]
        over |= (x[i] & exponent) + lowest
    return bits != 0, over


@kernel()
def screen(before, after, masks, changed, finite):  # type: ignore[no-untyped-def]
    """Find rows that differ, and whether the others are finite.

    Args:
        before: [rows, w] signed integers, words of one or more floats.
        after: the same.
        masks: [3] of the same dtype: the exponent bits of all floats in a word, the lowest of these bits, the signs.
        changed: [rows] bool, written.
        finite: [rows] bool, written; True for changed rows, which are looked at when they are sorted.
    """
    exponent, lowest, signs = masks[0], masks[1], masks[2]
    for row in range(len(before)):
        differs, over = _differ(before[row, :_PEEK], after[row, :_PEEK]), exponent ^ exponent
        for start in range(0, before.shape[1], _SEGMENT):
            if differs:
                break
            stop = start + _SEGMENT
            differs, found = _look(before[row, start:stop], after[row, start:stop], exponent, lowest)
            over |= found
        changed[row] = differs
        finite[row] = differs or (over & signs) == 0


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


@kernel(fastmath={"reassoc", "contract"})
def _squares(values):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(len(values)):
        total += np.float64(values[i]) * np.float64(values[i])
    return total


@kernel(fastmath={"reassoc", "contract"})
def _squares_bfloat16(bits):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(len(bits)):
        value = np.float64(np.int32(np.int32(bits[i]) << np.int32(16)).view(np.float32))
        total += value * value
    return total


@kernel()
def compare(before, after, values, changed, norm):  # type: ignore[no-untyped-def]
    """Find rows that differ, and add up squares, in one pass over the memory.

    Args:
        before: [rows, n] signed integers, bits of floats.
        after: the same.
        values: [rows, n] float32 or float64, those of `before`.
        changed: [rows] bool, set where a bit differs.
        norm: [rows] float64, to which the squares of `values` are added.
    """
    n = before.shape[1]
    for row in range(len(before)):
        differs, total = changed[row], norm[row]
        for start in range(0, n, _SEGMENT):
            stop = start + _SEGMENT
            if not differs:
                differs = _differ(before[row, start:stop], after[row, start:stop])
            total += _squares(values[row, start:stop])
        changed[row], norm[row] = differs, total


@kernel()
def compare_bfloat16(before, after, changed, norm):  # type: ignore[no-untyped-def]
    """`compare` for bits of bfloat16."""
    n = before.shape[1]
    for row in range(len(before)):
        differs, total = changed[row], norm[row]
        for start in range(0, n, _SEGMENT):
            stop = start + _SEGMENT
            if not differs:
                differs = _differ(before[row, start:stop], after[row, start:stop])
            total += _squares_bfloat16(before[row, start:stop])
        changed[row], norm[row] = differs, total


@kernel()
def _count(x, y):  # type: ignore[no-untyped-def]
    changed = np.int32(0)
    for i in range(len(x)):
        changed += np.int32(x[i] != y[i])
    return changed


@kernel(fastmath={"reassoc", "contract"})
def _moves(x, y):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(len(x)):
        move = np.float64(y[i]) - np.float64(x[i])
        total += move * move
    return total


@kernel(fastmath={"reassoc", "contract"})
def _moves_bfloat16(x, y):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(len(x)):
        old = np.float64(np.int32(np.int32(x[i]) << np.int32(16)).view(np.float32))
        move = np.float64(np.int32(np.int32(y[i]) << np.int32(16)).view(np.float32)) - old
        total += move * move
    return total


@kernel()
def moves(before, after, old, new, rows, count, shift):  # type: ignore[no-untyped-def]
    """How many values of some rows moved, and how far.

    Args:
        before: [any, n] signed integers, bits of floats.
        after: the same.
        old: [any, n] float32 or float64, the values of `before`.
        new: the same of `after`.
        rows: [k] int64, which of them.
        count: [k] int64, to which the number of values whose bits differ is added.
        shift: [k] float64, to which the squares of `new - old` are added.
    """
    n = before.shape[1]
    for k in range(len(rows)):
        row = rows[k]
        for start in range(0, n, _SEGMENT):
            stop = start + _SEGMENT
            count[k] += _count(before[row, start:stop], after[row, start:stop])
            shift[k] += _moves(old[row, start:stop], new[row, start:stop])


@kernel()
def moves_bfloat16(before, after, rows, count, shift):  # type: ignore[no-untyped-def]
    """`moves` for bits of bfloat16."""
    n = before.shape[1]
    for k in range(len(rows)):
        row = rows[k]
        for start in range(0, n, _SEGMENT):
            x, y = before[row, start : start + _SEGMENT], after[row, start : start + _SEGMENT]
            count[k] += _count(x, y)
            shift[k] += _moves_bfloat16(x, y)
