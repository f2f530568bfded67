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
