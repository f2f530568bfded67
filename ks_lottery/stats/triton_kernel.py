"""The kernel of the row-wise statistic for a GPU, in Triton. Imported only where it runs.

A program owns one row and keeps both of its sides in registers, as integers in the order of the values. Nothing is
shared between programs, and threads talk to each other only through Triton's own reductions and gathers.

Positions of a row are labels: a sort does not care which value starts where. Two labellings of the same registers are
used, and `reshape` and `permute` go from one to the other without moving a value:

- *sorting*: the lowest bits of a label count the registers of a thread, then come the threads. Most steps of the
  sorting network then stay inside a thread.
- *reading*: the lowest bits count the threads, so that neighbouring threads read neighbouring places.
"""

import triton
import triton.language as tl


@triton.jit
def _bit_of_label(axis: tl.constexpr, bits: tl.constexpr):  # type: ignore[no-untyped-def]
    """0 and 1 along one axis of a [2, ..., 2] tensor."""
    return tl.reshape(tl.arange(0, 2), [1] * axis + [2] + [1] * (bits - 1 - axis))


@triton.jit
def _sorted(keys, SIZE: tl.constexpr, BITS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Bitonic sort of [SIZE] integers, SIZE = 2 ** BITS.

    Blocks that the network wants descending hold the complement of their keys while they are sorted ascending, so that
    every exchange puts the smaller key first, which is one instruction where both keys belong to one thread.
    """
    x = tl.reshape(keys, [2] * BITS)
    for stage in tl.static_range(1, BITS + 1):
        if stage < BITS:
            x = x ^ -_bit_of_label(BITS - 1 - stage, BITS)
        for axis in tl.static_range(BITS - stage, BITS):
            other = x ^ tl.xor_sum(x, axis, keep_dims=True)
            x = tl.where((x > other) != (_bit_of_label(axis, BITS) > 0), other, x)
        if stage < BITS:
            x = x ^ -_bit_of_label(BITS - 1 - stage, BITS)
    return tl.reshape(x, [SIZE])


@triton.jit
def _climbed(a, b, n, SIZE: tl.constexpr, THREADS: tl.constexpr, STEPS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Largest h with a[i + h - 1] < b[i] or b[i + h - 1] < a[i] for some i, by bisection; 0 if there is none.

    a and b are sorted, [SIZE] in the labelling for reading: rank r has label (r % EACH) * THREADS + r // EACH. Ranks
    from n on hold the largest integer, which is below nothing.
    """
    EACH: tl.constexpr = SIZE // THREADS
    label = tl.arange(0, SIZE)
    low = 0
    high = n
    for _ in range(STEPS):
        h = (low + high + 1) // 2
        ahead = label // THREADS + tl.maximum(h - 1, 0)
        thread = label % THREADS + ahead // EACH
        partner = (ahead % EACH) * THREADS + thread % THREADS
        found = (tl.gather(a, partner, 0) < b) | (tl.gather(b, partner, 0) < a)
        reached = tl.max((found & (thread < THREADS)).to(tl.int32), 0) > 0
        low = tl.where(reached, h, low)
        high = tl.where(reached, high, tl.maximum(h - 1, low))
    return low


@triton.jit
def _keys(bits, inside, KEY: tl.constexpr, LOWEST: tl.constexpr, LARGEST: tl.constexpr):  # type: ignore[no-untyped-def]
    """Integers in the order of the floats, -0.0 and 0.0 one key; the largest integer outside the row."""
    key = bits.to(KEY)
    return tl.where(inside, tl.where(key < 0, LOWEST - key, key), LARGEST)


@triton.jit
def statistic_of_row(  # type: ignore[no-untyped-def]
    before,
    after,
    statistic,
    n,
    row_stride_before,
    row_stride_after,
    stride_before,
    stride_after,
    SIZE: tl.constexpr,
    BITS: tl.constexpr,
    THREADS: tl.constexpr,
    VECTOR: tl.constexpr,
    EXPONENT: tl.constexpr,
    KEY: tl.constexpr,
    LOWEST: tl.constexpr,
    LARGEST: tl.constexpr,
):
    """One row: write h with D = h / n, or -1 if `before` is not finite, or -2 if `after` is not.

    Args:
        before: pointer to signed integers, the bits of floats.
        after: the same.
        statistic: pointer to int64, one per row.
        n: values per row.
        row_stride_before: from one row of `before` to the next.
        row_stride_after: the same of `after`.
        stride_before: from one value of a row of `before` to the next.
        stride_after: the same of `after`.
        SIZE: n rounded up to a power of two.
        BITS: its logarithm.
        THREADS: that share a row, a power of two.
        VECTOR: values that a thread loads at once, a power of two; THREADS * VECTOR divides SIZE.
        EXPONENT: the exponent bits of the floats.
        KEY: dtype of the keys.
        LOWEST: the bits of -0.0 as a signed integer.
        LARGEST: largest integer of `KEY`; no key of a finite float reaches it.
    """
    row = tl.program_id(0).to(tl.int64)
    label = tl.arange(0, SIZE)
    inside = label < n
    place = label.to(tl.int64)
    old = tl.load(before + row * row_stride_before + place * stride_before, mask=inside, other=0)
    new = tl.load(after + row * row_stride_after + place * stride_after, mask=inside, other=0)
    state = tl.max(tl.where((old & EXPONENT) == EXPONENT, 2, (old != new).to(tl.int32)), 0)
    h = tl.where(state == 2, -1, 0)
    if state == 1:
        broken = tl.max(((new & EXPONENT) == EXPONENT).to(tl.int32), 0)
        x = _keys(old, inside, KEY, LOWEST, LARGEST)
        y = _keys(new, inside, KEY, LOWEST, LARGEST)
        x = tl.reshape(tl.permute(tl.reshape(x, [SIZE // (THREADS * VECTOR), THREADS, VECTOR]), (1, 0, 2)), [SIZE])
        y = tl.reshape(tl.permute(tl.reshape(y, [SIZE // (THREADS * VECTOR), THREADS, VECTOR]), (1, 0, 2)), [SIZE])
        for _ in range(2):  # a loop, so that the network is in the code once and stays in the instruction cache
            x, y = y, _sorted(x, SIZE, BITS)
        x = tl.reshape(tl.permute(tl.reshape(x, [THREADS, SIZE // THREADS]), (1, 0)), [SIZE])
        y = tl.reshape(tl.permute(tl.reshape(y, [THREADS, SIZE // THREADS]), (1, 0)), [SIZE])
        h = tl.where(broken > 0, -2, _climbed(x, y, n, SIZE, THREADS, BITS + 1))
    tl.store(statistic + row, h)
