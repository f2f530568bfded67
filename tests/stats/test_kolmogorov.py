import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import ks_2samp

from ks_lottery.errors import UnitError
from ks_lottery.stats import rows
from ks_lottery.stats.kolmogorov import two_sample_statistic

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def counted(before: torch.Tensor, after: torch.Tensor) -> list[int]:
    """h by its definition: the largest difference of the two counts of values up to v, over all values v."""
    result = []
    for a, b in zip(before.double().numpy(), after.double().numpy(), strict=True):
        values = np.concatenate([a, b])
        below = [np.searchsorted(np.sort(row), values, side="right") for row in (a, b)]
        result.append(int(np.abs(below[0] - below[1]).max()))
    return result


def scipys(before: torch.Tensor, after: torch.Tensor) -> list[int]:
    n = before.shape[1]
    pairs = zip(before.double().numpy(), after.double().numpy(), strict=True)
    return [round(ks_2samp(a, b, method="asymp").statistic * n) for a, b in pairs]


@st.composite
def row_pairs(draw):
    """Random rows: continuous or with ties and both zeros, some rows equal, some permuted, some far apart."""
    n = draw(st.one_of(st.integers(8, 70), st.sampled_from([255, 256, 257, 1000, 4096])))
    dtype = draw(st.sampled_from(DTYPES))
    levels = draw(st.sampled_from([None, 1, 3, 40]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    units = draw(st.integers(1, 5))
    before = torch.randn(units, n, generator=generator, dtype=torch.float64)
    noise = torch.randn(units, n, generator=generator, dtype=torch.float64)
    after = before + draw(st.sampled_from([0.0, 0.01, 1.0, 30.0])) * noise + draw(st.sampled_from([0.0, 0.1, 9.0]))
    if levels:
        before, after = (torch.round(rows * levels) / levels for rows in (before, after))
    after[0] = before[0] if draw(st.booleans()) else before[0].flip(0)
    return before.to(dtype), after.to(dtype)


@settings(max_examples=80, deadline=None)
@given(row_pairs())
def test_equals_scipy_and_the_definition(pair):
    before, after = pair
    h = two_sample_statistic(before, after)
    assert h.dtype == torch.int64
    assert h.tolist() == scipys(before, after) == counted(before, after)
    assert h[0] == 0


EXTREMES = [0.0, -0.0, 6e-8, -6e-8, 6.1e-5, 1.0, -1.0, 65504.0, -65504.0]


@settings(max_examples=80, deadline=None)
@given(
    st.integers(8, 12).flatmap(
        lambda n: arrays(np.float16, (2, 2, n), elements=st.sampled_from(EXTREMES).map(np.float16))
    )
)
def test_few_values_with_zeros_of_both_signs_and_subnormals(rows):
    before, after = torch.from_numpy(rows)
    expected = counted(before, after)
    assert two_sample_statistic(before, after).tolist() == expected
    assert two_sample_statistic(before.float(), after.float()).tolist() == expected
    assert two_sample_statistic(*rows).tolist() == expected


@pytest.mark.parametrize("dtype", DTYPES)
def test_negative_zero_equals_zero(dtype):
    zeros = torch.zeros(3, 16, dtype=dtype)
    assert two_sample_statistic(zeros, -zeros).tolist() == [0, 0, 0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_wholly_above_the_other_has_d_one(dtype):
    low = torch.arange(-16, 0, dtype=dtype).repeat(2, 1)
    assert two_sample_statistic(low, -low).tolist() == [16, 16]


def test_symmetric_and_blind_to_order_and_to_increasing_maps():
    generator = torch.Generator().manual_seed(1)
    before, after = torch.randn(2, 20, 100, generator=generator)
    h = two_sample_statistic(before, after)
    assert torch.equal(h, two_sample_statistic(after, before))
    assert torch.equal(h, two_sample_statistic(before.flip(1), after))
    assert torch.equal(h, two_sample_statistic(4 * before, 4 * after))
    assert torch.equal(h, two_sample_statistic(-before, -after))


@pytest.mark.parametrize("dtype", DTYPES)
def test_strided_inputs_gradients_and_read_only_inputs_are_accepted_and_unchanged(dtype):
    generator = torch.Generator().manual_seed(2)
    before, after = torch.randn(2, 40, 7, generator=generator).to(dtype)
    kept = before.clone(), after.clone()
    leaf = before.clone().requires_grad_()
    h = two_sample_statistic(leaf.T, after.T)
    assert torch.equal(h, two_sample_statistic(before.T.contiguous(), after.T.contiguous()))
    assert torch.equal(before, kept[0])
    assert torch.equal(after, kept[1])
    assert not h.requires_grad


def test_numpy_in_numpy_out_also_from_read_only_memory():
    generator = np.random.default_rng(3)
    before, after = generator.normal(size=(2, 5, 64)).astype(np.float32)
    before.setflags(write=False)
    h = two_sample_statistic(before, after)
    assert isinstance(h, np.ndarray)
    assert h.dtype == np.int64
    assert h.tolist() == two_sample_statistic(torch.tensor(before), torch.tensor(after)).tolist()


def test_chunks_do_not_show(monkeypatch):
    generator = torch.Generator().manual_seed(4)
    before = torch.randn(50, 33, generator=generator)
    after = before.clone()
    after[::3] += torch.randn(17, 33, generator=generator)
    whole = two_sample_statistic(before, after)
    assert (whole[1::3] == 0).all()
    assert (whole[::3] > 0).all()
    for block_bytes in (1, 33 * 4 * 7, 33 * 4 * 50):
        monkeypatch.setattr(rows, "_MOST_BLOCK_BYTES", block_bytes)
        assert torch.equal(whole, two_sample_statistic(before, after))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_too_large_to_be_sorted_as_a_whole(dtype, monkeypatch):
    generator = torch.Generator().manual_seed(4)
    before = torch.randn(6, 3000, generator=generator).to(dtype)
    after = (before.float() + 0.1 * torch.randn(6, 3000, generator=generator)).to(dtype)
    after[2] = before[2]
    sorted_whole = two_sample_statistic(before, after)
    monkeypatch.setattr(rows, "_MOST_SORTED_BYTES", 2 * before.element_size() * 1000)
    for threads in (1, 5, 16):
        assert torch.equal(two_sample_statistic(before, after, threads=threads), sorted_whole)
    after[4, 7] = float("nan")
    with pytest.raises(UnitError, match=r"Row 4 of 'layers' after holds 1 NaN .*, the first at position 7"):
        two_sample_statistic(before, after, name="layers")


def test_no_units_give_no_statistics():
    assert two_sample_statistic(torch.empty(0, 8), torch.empty(0, 8)).shape == (0,)


@pytest.mark.parametrize("shape", [(1024, 2048), (2, 2**20), (1, 2**21)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_at_most_64_mib_beyond_the_inputs(dtype, shape):
    generator = np.random.default_rng(5)
    before = generator.normal(size=shape).astype(dtype)
    after = (before + generator.normal(size=(len(before), 1)) * before[:, ::-1]).astype(dtype)
    tracemalloc.start()
    try:
        two_sample_statistic(before, after)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("side", ["before", "after", "both"])
def test_non_finite_values_are_refused_with_the_row(dtype, value, side, monkeypatch):
    monkeypatch.setattr(rows, "_MOST_BLOCK_BYTES", 40)
    before, after = torch.ones(2, 9, 10, dtype=dtype)
    if side != "after":
        before[7, 4] = value
    if side != "before":
        after[7, 4] = value
    found = "after" if side == "after" else "before"
    message = (
        rf"Row 7 of 'embed' {found} holds 1 NaN or infinite value\(s\), the first at position 4\. Leave the row out"
    )
    with pytest.raises(UnitError, match=message):
        two_sample_statistic(before, after, name="embed")


def test_largest_finite_values_are_accepted():
    for dtype in DTYPES:
        before = torch.full((1, 8), torch.finfo(dtype).max, dtype=dtype)
        assert two_sample_statistic(before, -before).item() == 8


def test_what_cannot_be_compared_is_refused():
    rows = torch.zeros(3, 8)
    with pytest.raises(
        UnitError, match=r"'embed': the KS test .* at least 8 values per unit, got 7\. Use larger units"
    ):
        two_sample_statistic(rows[:, :7], rows[:, :7], name="embed")
    with pytest.raises(UnitError, match=r"must both have shape \[units, n\], got \(3, 8\) and \(2, 8\)\. Reshape"):
        two_sample_statistic(rows, rows[:2])
    with pytest.raises(UnitError, match=r"got \(8,\) and \(8,\)"):
        two_sample_statistic(rows[0], rows[0])
    with pytest.raises(UnitError, match=r"before is float32, after bfloat16\. .* cast both to the narrower dtype"):
        two_sample_statistic(rows, rows.bfloat16())
    with pytest.raises(
        UnitError, match=r"dtype int64 has no KS test here\. Cast to one of: float16, bfloat16, float32"
    ):
        two_sample_statistic(rows.long(), rows.long())
    with pytest.raises(UnitError, match=r"before is a torch tensor, after a ndarray\. Pass two of one kind"):
        two_sample_statistic(rows, rows.numpy())


def test_effect_size_of_paired_noise():
    """Small noise on every entry is invisible to KS, and a permutation always is: paired rows are no iid samples."""
    generator = torch.Generator().manual_seed(6)
    before = torch.randn(100, 4096, generator=generator)
    noise = torch.randn(100, 4096, generator=generator)
    medians = [two_sample_statistic(before, before + r * noise).double().median() / 4096 for r in (0.1, 0.5, 1.0)]
    assert medians == pytest.approx([0.0073, 0.0342, 0.0911], rel=0.1)
