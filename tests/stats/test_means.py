"""t intervals of few values, with their own and with a pooled deviation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t, ttest_1samp

from ks_lottery.errors import OptionError
from ks_lottery.stats.means import pooled_means, t_interval


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=9).filter(lambda values: np.ptp(values) > 1e-3))
def test_one_sample_is_scipy_s(values: list[float]) -> None:
    interval = t_interval(values, 0.9)
    assert interval is not None
    low, high = ttest_1samp(values, 0.0).confidence_interval(0.9)
    assert interval == pytest.approx((np.mean(values), low, high), rel=1e-9, abs=1e-9)


def test_deviation_is_pooled_over_samples() -> None:
    found = pooled_means([[1.0, 3.0], [5.0, 5.0], [7.0]])
    assert found.freedom == 2
    assert found.deviation == pytest.approx(1.0)
    half = t.ppf(0.975, 2)
    expected = [(2.0, half / np.sqrt(2)), (5.0, half / np.sqrt(2)), (7.0, half)]
    for interval, (mean, ends) in zip(found.means, expected, strict=True):
        assert interval == pytest.approx((mean, mean - ends, mean + ends))


def test_values_without_spread() -> None:
    assert t_interval([3.0]) is None
    assert pooled_means([[1.0], [2.0]]) == ((None, None), None, 0)
    assert t_interval([2.0, 2.0]) == (2.0, 2.0, 2.0)


def test_impossible_means() -> None:
    with pytest.raises(OptionError, match=r"confidence must lie in \(0, 1\), got 95"):
        t_interval([1.0, 2.0], 95)
    with pytest.raises(OptionError, match="A sample has no value, so it has no mean"):
        pooled_means([[1.0], []])
