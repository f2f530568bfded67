import math
import threading
import tracemalloc
from contextlib import ExitStack, contextmanager
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import ks_2samp

from ks_lottery.errors import UnitError
from ks_lottery.stats import matrix, matrix_bins, matrix_kernels
from ks_lottery.stats.floats import FloatBits, bits_of
from ks_lottery.stats.matrix import MatrixShift, matrix_statistic

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
WIDE = [np.float32, np.float64]


def counted(before: torch.Tensor, after: torch.Tensor) -> int:
    """k by its definition: the largest difference of the weighted counts of values up to v, over all values v."""
    a, b = (np.sort(side.double().numpy(), axis=None) for side in (before, after))
    whole = math.lcm(a.size, b.size)
    values = np.unique(np.concatenate([a, b]))
    below = [np.searchsorted(side, values, side="right") * (whole // side.size) for side in (a, b)]
    return int(np.abs(below[0] - below[1]).max())


def scipys(before: torch.Tensor, after: torch.Tensor) -> int:
    a, b = (side.double().numpy().ravel() for side in (before, after))
    return round(ks_2samp(a, b, method="asymp").statistic * math.lcm(a.size, b.size))


@contextmanager
def limits(
    vectorised: bool = False, kept: int = 2**8, sorted_: int = 2**10, bins: int = 32, part: int = 400, block: int = 150
):
    """Few values use every path that many would: the first two in bytes, the others in bins and values."""
    with ExitStack() as stack:
        for module, name, value in (
            (matrix_bins, "_KEPT_BYTES", kept),
            (matrix, "_SORTED_BYTES", sorted_),
            (matrix, "_PART", part),
            (matrix, "BINS", bins),
            (matrix_bins, "BINS", bins),
            (matrix_bins, "BLOCK", block),
        ):
            stack.enter_context(mock.patch.object(module, name, value))
        if vectorised:
            for module in (matrix, matrix_bins):
                stack.enter_context(mock.patch.object(module, "kernels", return_value=matrix_kernels.VECTORISED))
        yield


def streamed(before: torch.Tensor, after: torch.Tensor, add: int, reread: int) -> int:
    """The statistic of a matrix that is added, and read again, so many values at a time."""
    x, y = (bits_of(side).reshape(-1) for side in (before, after))
    shift = MatrixShift(x.dtype)
    for start in range(0, len(x), add):
        shift.add(x[start : start + add], y[start : start + add])
    assert shift.size == len(x)
    return shift.statistic(
        lambda: ((x[start : start + reread], y[start : start + reread]) for start in range(0, len(x), reread))
    )


@st.composite
def samples(draw):
    """Two samples: continuous or with ties and both zeros, partly unchanged, permuted or unequal in size."""
    n = draw(st.one_of(st.integers(8, 70), st.sampled_from([255, 1001])))
    dtype = draw(st.sampled_from(DTYPES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    before = torch.randn(n, generator=generator, dtype=torch.float64)
    kind = draw(st.sampled_from(["moved", "permuted", "other size"]))
    if kind == "moved":
        noise = torch.randn(n, generator=generator, dtype=torch.float64)
        noise *= torch.rand(n, generator=generator) < draw(st.sampled_from([0.0, 0.05, 0.5, 1.0]))
        after = before + draw(st.sampled_from([1e-3, 1.0, 30.0])) * noise
    elif kind == "permuted":
        after = before[torch.randperm(n, generator=generator)]
    else:
        after = torch.randn(draw(st.integers(8, 500)), generator=generator, dtype=torch.float64)
    levels = draw(st.sampled_from([None, 1, 3, 40]))
    if levels:
        before, after = (torch.round(side * levels) / levels for side in (before, after))
    return before.to(dtype), after.to(dtype)


@settings(max_examples=50, deadline=None)
@given(samples(), st.booleans())
def test_equals_scipy_and_the_definition_however_little_is_kept_sorted_and_counted(pair, vectorised):
    expected = counted(*pair)
    assert matrix_statistic(*pair) == expected == scipys(*pair)
    with limits(vectorised):
        assert matrix_statistic(*pair, threads=2) == expected
        assert matrix_statistic(*reversed(pair), threads=1) == expected


@settings(max_examples=25, deadline=None)
@given(samples().filter(lambda pair: len(pair[0]) == len(pair[1])), st.integers(1, 4000), st.integers(1, 4000))
def test_pieces_do_not_show(pair, add, reread):
    with limits():
        assert streamed(*pair, max(add, len(pair[0]) // 40), max(reread, len(pair[0]) // 40)) == counted(*pair)


EXTREMES = [0.0, -0.0, 6e-8, -6e-8, 6.1e-5, 1.0, -1.0, 65504.0, -65504.0]


@settings(max_examples=25, deadline=None)
@given(arrays(np.float16, (2, 30), elements=st.sampled_from(EXTREMES).map(np.float16)), st.booleans())
def test_few_values_with_zeros_of_both_signs_and_subnormals(rows, vectorised):
    before, after = torch.from_numpy(rows)
    expected = counted(before, after)
    with limits(vectorised):
        for cast in (torch.Tensor.half, torch.Tensor.float, torch.Tensor.double):
            assert matrix_statistic(cast(before), cast(after)) == expected


def adversaries() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    generator = np.random.default_rng(0)
    normal = generator.normal(size=2000)
    tiny = np.finfo(np.float64).smallest_subnormal
    return {
        "one value": (np.full(100, 0.5), np.full(100, 0.5)),
        "one value each": (np.full(100, 0.5), np.full(100, 0.25)),
        "alternating signs": (np.tile([1.0, -1.0], 500), np.tile([-1.0, 1.0], 500)),
        "signs swapped in place": (normal, -normal),
        "both zeros": (np.zeros(50), -np.zeros(50)),
        "subnormals": (tiny * generator.integers(-9, 9, 3000), tiny * generator.integers(-8, 10, 3000)),
        "sorted": (np.sort(normal), normal),
        "reversed": (np.sort(normal), np.sort(normal)[::-1]),
        "heavy ties": (generator.integers(0, 3, 9000) / 2, generator.integers(0, 4, 9000) / 2),
        "a heavy tie among many": (np.append(normal, np.full(3000, 0.1)), np.append(normal + 0.01, np.full(3000, 0.2))),
        "neighbours of one": (1 + 2.0**-52 * generator.integers(0, 99, 5000), 1 + 2.0**-52 * np.arange(5000) % 99),
        "two distant clusters": (
            np.concatenate([1 + 1e-13 * normal, 1e4 + 1e-9 * normal]),
            np.concatenate([1 + 1.1e-13 * normal, 1e4 + 1.1e-9 * normal]),
        ),
        "coprime": (generator.normal(size=10000), generator.normal(size=9999)),
        "multiple": (generator.normal(size=10000), generator.normal(size=8)),
        "largest": (np.full(40, 6e4), np.full(40, -6e4)),
    }


@pytest.mark.parametrize("vectorised", [False, True], ids=["compiled", "vectorised"])
@pytest.mark.parametrize("name", adversaries())
def test_adversarial_samples(name, vectorised):
    for dtype in DTYPES:
        before, after = (torch.from_numpy(side.copy()).to(dtype) for side in adversaries()[name])
        expected = counted(before, after)
        assert matrix_statistic(before, after) == expected == scipys(before, after)
        with limits(vectorised, sorted_=2**12, block=1000, part=4000):
            assert matrix_statistic(before, after) == expected
            if len(before) == len(after):
                assert streamed(before, after, 700, 300) == expected


@pytest.mark.parametrize("vectorised", [False, True], ids=["compiled", "vectorised"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_counts_beyond_16_bits(dtype, vectorised):
    before = torch.ones(150_000, dtype=dtype)
    after = torch.where(torch.arange(150_000) < 70_000, 2, 3).to(dtype)
    before[:10] = 2.5
    with limits(vectorised, block=2**15, part=2**16):
        assert matrix_statistic(before, after) == counted(before, after) == 149_990


def test_heights_beyond_int64():
    generator = torch.Generator().manual_seed(0)
    before, after = torch.randn(997, generator=generator), torch.randn(1009, generator=generator)
    with limits(), mock.patch.object(matrix, "_LARGEST_INT64", 1):
        assert matrix_statistic(before, after) == counted(before, after)
        assert matrix_statistic(before, before.flip(0) + 0.1) == counted(before, before + 0.1)


@pytest.mark.parametrize("dtype", WIDE)
def test_the_usual_sizes_of_all_parts(dtype):
    """Bins, a cut and several rounds of sorting with nothing made smaller than it is but the sizes of both."""
    generator = np.random.default_rng(1)
    before = generator.normal(size=1_500_000).astype(dtype)
    after = (before + 1e-5 * generator.normal(size=before.size)).astype(dtype)
    expected = counted(torch.from_numpy(before), torch.from_numpy(after))
    assert matrix_statistic(before, after) == expected
    with mock.patch.object(matrix, "_SORTED_BYTES", 2**20):
        assert matrix_statistic(before, after) == expected


@pytest.mark.parametrize("dtype", WIDE)
def test_at_most_64_mib_beyond_the_inputs(dtype):
    generator = np.random.default_rng(2)
    before = generator.normal(size=2_500_000).astype(dtype)
    cases = {
        "permutation": (before, generator.permutation(before)),
        "ties": (np.round(before), np.round(before)),
        "noise": (before, before * dtype(1.001)),
    }
    for name, (old, new) in cases.items():
        tracemalloc.start()
        try:
            matrix_statistic(old, new[::-1], threads=8)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 64 * 2**20, name


def test_several_threads_may_add():
    generator = torch.Generator().manual_seed(3)
    before = torch.randn(200_000, generator=generator)
    after = before + 0.01 * torch.randn(200_000, generator=generator)
    x, y = bits_of(before), bits_of(after)
    with limits(block=1000, part=3000, bins=1024, kept=2**16, sorted_=2**16):
        shift = MatrixShift("float32")
        adders = [
            threading.Thread(
                target=lambda first: [
                    shift.add(x[start : start + 5000], y[start : start + 5000], start=start)
                    for start in range(first, 200_000, 20_000)
                ],
                args=(first,),
            )
            for first in range(0, 20_000, 5000)
        ]
        for adder in adders:
            adder.start()
        for adder in adders:
            adder.join()
        assert shift.size == 200_000
        assert shift.statistic(lambda: iter([(x, y)]), threads=4) == counted(before, after)


def test_the_statistic_of_what_was_added_so_far():
    generator = torch.Generator().manual_seed(4)
    before, after = torch.randn(2, 3000, generator=generator)
    x, y = bits_of(before), bits_of(after)
    with limits():
        shift = MatrixShift("float32")
        for end in (1000, 3000):
            shift.add(x[shift.size : end], y[shift.size : end])
            for _ in range(2):
                assert shift.statistic(lambda: iter([(x[:end], y[:end])])) == counted(before[:end], after[:end])  # noqa: B023


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_read_again_if_little_changed_or_a_value_has_16_bits(dtype):
    generator = torch.Generator().manual_seed(5)
    before = torch.randn(100_000, generator=generator).to(dtype)
    after = before.clone()
    changed = 100_000 if dtype.itemsize == 2 else 1000
    after[:changed] += 1
    shift = MatrixShift(str(dtype).removeprefix("torch."))
    shift.add(bits_of(before), bits_of(after))
    assert shift.statistic(lambda: pytest.fail("read again")) == counted(before, after)


@pytest.mark.parametrize("dtype", DTYPES)
def test_shapes_strides_and_read_only_memory_do_not_matter_and_nothing_is_written(dtype):
    generator = torch.Generator().manual_seed(6)
    before, after = torch.randn(2, 40, 70, generator=generator).to(dtype)
    kept = before.clone(), after.clone()
    expected = counted(before, after)
    with limits():
        assert matrix_statistic(before.clone().requires_grad_(), after) == expected
        assert matrix_statistic(before.T, after.reshape(2, 1400)) == expected
        assert matrix_statistic(before.repeat(1, 2)[:, ::2].repeat(1, 1), after[:, ::1]) >= 0
        assert streamed(before.T, after.T, 2800, 100) == expected
        x, y = bits_of(before), bits_of(after)
        x.array.setflags(write=False)
        assert matrix_statistic(x, y) == matrix_statistic(x, after) == expected
        shift = MatrixShift(x.dtype)
        shift.add(FloatBits(x.array.T, x.dtype), FloatBits(y.array.T, y.dtype))
        assert shift.statistic(lambda: iter([(x, y)])) == expected
    assert torch.equal(before, kept[0])
    assert torch.equal(after, kept[1])


def test_numpys_loops_are_used_where_nothing_is_compiled(monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    matrix_kernels.kernels.cache_clear()
    try:
        assert matrix_kernels.kernels() is matrix_kernels.VECTORISED
        assert matrix_statistic(np.arange(8.0), np.arange(8.0) + 2.5) == 3
    finally:
        matrix_kernels.kernels.cache_clear()


@pytest.mark.parametrize("vectorised", [False, True], ids=["compiled", "vectorised"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_values_are_refused_with_their_position(dtype, value, vectorised):
    for side, change in (("before", 0.0), ("after", 1.0), ("before", 1.0), ("after", 0.0)):
        pair = {"before": torch.ones(30, 10, dtype=dtype), "after": torch.ones(30, 10, dtype=dtype) + change}
        pair[side][17, 4] = value
        message = rf"'embed' {side} holds NaN or an infinite value at flat position 174\. Leave it out, or use"
        with limits(vectorised):
            with pytest.raises(UnitError, match=message):
                matrix_statistic(pair["before"], pair["after"], name="embed", threads=2)
            with pytest.raises(UnitError, match=message):
                matrix_statistic(
                    pair["before"][: 30 - (side == "after")], pair["after"][: 29 + (side == "after")], name="embed"
                )
            x, y = bits_of(pair["before"]), bits_of(pair["after"])
            shift = MatrixShift(x.dtype, "embed")
            shift.add(x[:10], y[:10])
            with pytest.raises(UnitError, match=message):
                shift.add(x[10:], y[10:])
            with pytest.raises(UnitError, match=r"'embed' .* at flat position 1074\."):
                shift.add(x[10:], y[10:], start=1000)


@pytest.mark.parametrize("sorted_", [2**7, 2**13], ids=["cut", "sorted"])
def test_values_that_change_while_they_are_read_are_refused(sorted_):
    generator = torch.Generator().manual_seed(7)
    before, after = torch.randn(2, 2000, generator=generator)
    x, y = bits_of(before), bits_of(after)
    with limits(sorted_=sorted_):
        shift = MatrixShift("float32", "embed")
        shift.add(x, y)
        for others in [(y, x), (x[:1000], y[:1000]), (FloatBits(np.tile(x.array, 2), "float32"),) * 2]:
            with pytest.raises(UnitError, match=r"'embed' changed while it was read: .* read the same again"):
                shift.statistic(lambda: iter([others]))  # noqa: B023
        doubled = [FloatBits(np.tile(side.array, 2), "float32") for side in (x, y)]
        with pytest.raises(UnitError, match=r"'embed' changed while it was read"):
            shift.statistic(lambda: iter([tuple(doubled)]))
        assert shift.statistic(lambda: iter([(x, y)])) == counted(before, after)


def test_what_cannot_be_compared_is_refused():
    rows = torch.zeros(4, 8)
    with pytest.raises(UnitError, match=r"'embed': .* at least 8 values, got 7 before and 8 after\. Join small"):
        matrix_statistic(rows[0, :7], rows[0], name="embed")
    with pytest.raises(UnitError, match=r"at least 8 values, got 0 before and 0 after"):
        MatrixShift("float32").statistic(lambda: iter([]))
    with pytest.raises(UnitError, match=r"before is float32, after bfloat16\. .* cast both to the narrower dtype"):
        matrix_statistic(rows, rows.bfloat16())
    with pytest.raises(UnitError, match=r"'embed': dtype int64 has no KS test here"):
        matrix_statistic(rows.long(), rows.long(), name="embed")
    with pytest.raises(UnitError, match=r"'embed': dtype int8 has no KS test here"):
        MatrixShift("int8", "embed")
    shift = MatrixShift("float32", "embed")
    bits, narrow = bits_of(rows), bits_of(rows.half())
    with pytest.raises(UnitError, match=r"'embed': before is float32, after float16"):
        shift.add(bits, narrow)
    with pytest.raises(UnitError, match=r"'embed' is float32, got a piece of float16\. Cast all of it or none"):
        shift.add(narrow, narrow)
    with pytest.raises(
        UnitError, match=r"pieces of before and after have shapes \(4, 8\) and \(3, 8\)\. Read the same"
    ):
        shift.add(bits, bits[:3])
