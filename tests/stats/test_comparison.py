import numpy as np
import pytest
import torch

from ks_lottery.errors import UnitError
from ks_lottery.stats import comparison
from ks_lottery.stats.comparison import compare_rows
from ks_lottery.stats.floats import bits_of
from ks_lottery.stats.kolmogorov import two_sample_statistic

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def a_pair(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    before = torch.randn(60, 70, generator=generator, dtype=torch.float64)
    after = before.clone()
    after[::3] += 0.1 * torch.randn(20, 70, generator=generator, dtype=torch.float64)
    after[1, 3] = 8.0
    before[4] = 0.0
    return before.to(dtype), after.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", ["torch", "bits"])
def test_one_pass_gives_what_separate_ones_would(dtype, form):
    before, after = a_pair(dtype)
    sides = (before, after) if form == "torch" else (bits_of(before), bits_of(after))
    result = compare_rows(*sides, threads=2)
    old, new = before.double().numpy(), after.double().numpy()
    assert result.statistic.tolist() == two_sample_statistic(before, after).tolist()
    assert result.changed_values.tolist() == (old != new).sum(axis=1).tolist()
    assert result.changed.tolist() == (old != new).any(axis=1).tolist()
    np.testing.assert_allclose(result.shift, np.linalg.norm(new - old, axis=1), rtol=1e-13)
    np.testing.assert_allclose(result.squared_norm, (old**2).sum(axis=1), rtol=1e-13)
    expected = np.divide(result.shift, np.linalg.norm(old, axis=1), out=np.zeros(60), where=(old != 0).any(axis=1))
    np.testing.assert_allclose(result.relative_shift, expected, rtol=1e-13)
    assert result.relative_shift[4] == 0.0


def test_without_compiled_kernels_the_sums_agree(monkeypatch):
    from ks_lottery.stats import vectorised

    before, after = a_pair(torch.bfloat16)
    compiled = compare_rows(before, after)
    monkeypatch.setattr("ks_lottery.stats.rows.kernels", lambda: vectorised)
    monkeypatch.setattr(comparison, "kernels", lambda: vectorised)
    plain = compare_rows(before, after)
    assert plain.statistic.tolist() == compiled.statistic.tolist()
    np.testing.assert_allclose(plain.squared_shift, compiled.squared_shift, rtol=1e-13)
    np.testing.assert_allclose(plain.squared_norm, compiled.squared_norm, rtol=1e-13)


def test_short_rows_can_be_compared_without_a_statistic():
    before = torch.tensor([[1.0], [2.0], [-0.0]])
    after = torch.tensor([[1.0], [5.0], [0.0]])
    result = compare_rows(before, after, statistic=False)
    assert result.statistic is None
    assert result.changed_values.tolist() == [0, 1, 1]
    assert result.shift.tolist() == [0.0, 3.0, 0.0]
    with pytest.raises(UnitError, match="at least 8 values per unit, got 1"):
        compare_rows(before, after)


@pytest.mark.parametrize("statistic", [True, False])
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_non_finite_values_are_refused_with_the_row(statistic, side, dtype):
    pair = a_pair(dtype)
    pair[side][33, 9] = float("nan")
    pair[side][33, 10] = float("-inf")
    which = ("before", "after")[side]
    with pytest.raises(UnitError, match=rf"Row 43 of 'w' {which} holds 2 NaN or infinite value\(s\), .* position 9"):
        compare_rows(*pair, name="w", first_row=10, statistic=statistic)


def test_no_rows_give_no_rows():
    result = compare_rows(torch.empty(0, 8), torch.empty(0, 8))
    assert result.statistic.shape == result.shift.shape == (0,)


@pytest.mark.parametrize("dtype", DTYPES)
def test_long_rows_are_summed_in_parts(dtype, monkeypatch):
    before, after = a_pair(dtype)
    whole = compare_rows(before, after)
    monkeypatch.setattr(comparison, "_SUMMED_VALUES", 16)
    parts = compare_rows(before, after)
    np.testing.assert_allclose(parts.squared_shift, whole.squared_shift, rtol=1e-13)
    np.testing.assert_allclose(parts.squared_norm, whole.squared_norm, rtol=1e-13)
    assert parts.changed_values.tolist() == whole.changed_values.tolist()


def test_values_too_large_to_be_squared_are_no_error():
    before = np.full((2, 8), 1e200)
    result = compare_rows(before, -before)
    assert result.statistic.tolist() == [8, 8]
    assert np.isinf(result.shift).all()


def test_pieces_are_joined_in_order():
    before, after = a_pair(torch.float32)
    whole = compare_rows(before, after)
    pieces = comparison.joined([compare_rows(before[i : i + 7], after[i : i + 7]) for i in range(0, 60, 7)])
    assert pieces.statistic.tolist() == whole.statistic.tolist()
    assert pieces.shift.tolist() == whole.shift.tolist()
    assert comparison.joined([compare_rows(before, after, statistic=False)]).statistic is None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("at_least", [1, 5, 12, 40, 71])
def test_a_threshold_keeps_every_statistic_that_reaches_it(dtype, at_least, monkeypatch):
    monkeypatch.setattr("ks_lottery.stats.rows._MOST_BLOCK_BYTES", 2000)
    before, after = a_pair(dtype)
    generator = torch.Generator().manual_seed(6)
    after[::2] += (torch.randn(30, 1, generator=generator, dtype=torch.float64) * 0.5).to(dtype)
    exact, cut = compare_rows(before, after), compare_rows(before, after, at_least=at_least)
    reached = exact.statistic >= at_least
    assert cut.statistic[reached].tolist() == exact.statistic[reached].tolist()
    assert ((cut.statistic[~reached] == exact.statistic[~reached]) | (cut.statistic[~reached] == 0)).all()
    assert cut.shift.tolist() == exact.shift.tolist()
    assert cut.changed_values.tolist() == exact.changed_values.tolist()
    if at_least == 71:
        assert not cut.statistic.any()


def test_where_little_is_settled_the_next_blocks_are_sorted(monkeypatch):
    from ks_lottery.stats import rows

    calls = []
    settle = rows.settled_below
    monkeypatch.setattr(rows, "settled_below", lambda *sides: calls.append(len(sides[0])) or settle(*sides))
    monkeypatch.setattr(rows, "_MOST_BLOCK_BYTES", 4 * 64 * 10)
    before = np.random.default_rng(0).normal(size=(400, 64)).astype(np.float32)
    assert compare_rows(before, before + 9, at_least=20, threads=1).statistic.tolist() == [64] * 400
    assert calls == [10, 10, 10]
    assert (compare_rows(before, before * np.float32(1.0001), at_least=20, threads=1).statistic < 20).all()
    assert len(calls) == 43


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_way_of_gpu_tensors_gives_the_same(dtype, monkeypatch):
    """The code for tensors on a GPU, on tensors of the CPU."""
    before, after = a_pair(dtype)
    expected = compare_rows(before, after)
    monkeypatch.setattr(comparison, "_GPU_CHUNK_VALUES", 70 * 7)
    result = comparison._compare_on_gpu(before, after, "rows", 0, True)
    assert result.statistic.tolist() == expected.statistic.tolist()
    assert result.changed_values.tolist() == expected.changed_values.tolist()
    np.testing.assert_allclose(result.squared_shift, expected.squared_shift, rtol=1e-13)
    np.testing.assert_allclose(result.squared_norm, expected.squared_norm, rtol=1e-13)
    assert comparison._compare_on_gpu(before, after, "rows", 0, False).statistic is None
    after[5, 2] = float("inf")
    with pytest.raises(UnitError, match="Row 15 of 'w' after holds 1 NaN or infinite"):
        comparison._compare_on_gpu(before, after, "w", 10, False)
