import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mpmath import mp, mpf
from scipy.stats import combine_pvalues

from ks_lottery.errors import UnitError
from ks_lottery.stats.combination import fisher_log_p


@given(arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.floats(1e-12, 1.0)))
def test_equals_scipy(p):
    expected = [combine_pvalues(column, method="fisher").pvalue for column in p.T]
    np.testing.assert_allclose(np.exp(fisher_log_p(np.log(p))), expected, rtol=1e-10)


def test_stays_exact_where_p_underflows():
    log_p = np.array([[-3000.0], [-2.0], [0.0]])
    with mp.workdps(60):
        t = mpf(3002)
        expected = mp.log(sum(t**i / mp.factorial(i) for i in range(3))) - t
    np.testing.assert_allclose(fisher_log_p(log_p), [float(expected)], rtol=1e-14)


def test_one_test_is_itself_and_no_shift_stays_none():
    assert fisher_log_p([[-3.5, 0.0]]).tolist() == [-3.5, 0.0]
    assert fisher_log_p(np.zeros((4, 3))).tolist() == [0.0, 0.0, 0.0]


def test_what_is_no_log_p_is_refused():
    with pytest.raises(UnitError, match=r"at most 0, of at least one test; got 0 tests"):
        fisher_log_p(np.zeros((0, 3)))
    with pytest.raises(UnitError, match=r"got 2 tests with a largest value of 0\.1"):
        fisher_log_p([[0.1], [-1.0]])


def test_stays_exact_and_ordered_near_one():
    small = np.array([1e-3, 1e-4, 1e-5, 1e-6])
    result = fisher_log_p(np.stack([-small, -small, -small]))
    with mp.workdps(60):
        expected = [float(mp.log(mp.gammainc(3, 3 * mpf(float(t))) / 2)) for t in small]
    np.testing.assert_allclose(result, expected, rtol=1e-12)
    assert (np.diff(result) > 0).all()
