import itertools
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp, kstwobign

from ks_lottery.errors import UnitError
from ks_lottery.stats import unequal
from ks_lottery.stats.pvalues import log_p_table
from ks_lottery.stats.unequal import EXACT_PRODUCT, log_p_unequal

TINY = [(1, 2), (2, 1), (1, 7), (2, 3), (3, 6), (4, 6), (5, 4), (7, 3), (6, 8)]


def enumerated(n: int, m: int) -> list[Fraction]:
    """P(D >= k / lcm(n, m)) for every k, from every order in which the values of two samples can lie."""
    common = math.lcm(n, m)
    reached = [0] * (common + 1)
    for places in itertools.combinations(range(n + m), n):
        i = j = largest = 0
        for place in range(n + m):
            i, j = (i + 1, j) if place in places else (i, j + 1)
            largest = max(largest, abs(i * (common // n) - j * (common // m)))
        reached[largest] += 1
    total = math.comb(n + m, n)
    return [Fraction(sum(reached[k:]), total) for k in range(common + 1)]


def counted(k: int, n: int, m: int) -> mpmath.mpf:
    """Log of P(D >= k / lcm(n, m)), every path counted in integers of any length."""
    common = math.lcm(n, m)
    staying = [0] * (m + 1)
    for i in range(n + 1):
        for j in range(m + 1):
            if abs(i * (common // n) - j * (common // m)) >= k:
                staying[j] = 0
            elif i + j == 0:
                staying[j] = 1
            else:
                staying[j] = (staying[j] if i else 0) + (staying[j - 1] if j else 0)
    total = math.comb(n + m, n)
    with mpmath.workdps(40):
        return mpmath.log(mpmath.mpf(total - staying[m]) / total)


@pytest.mark.parametrize(("n", "m"), TINY)
def test_tiny_samples_equal_enumeration(n: int, m: int) -> None:
    exact = enumerated(n, m)
    log_p = log_p_unequal(np.arange(len(exact)), n, m)
    assert log_p[0] == 0.0
    assert np.exp(log_p) == pytest.approx([float(p) for p in exact], rel=1e-13)


@pytest.mark.parametrize(("n", "m", "k"), [(31, 47, 300), (60, 45, 37), (200, 150, 555), (257, 80, 9000)])
def test_equals_counting_every_path(n: int, m: int, k: int) -> None:
    assert float(log_p_unequal(k, n, m)) == pytest.approx(float(counted(k, n, m)), rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(8, 13), (20, 30), (100, 77), (64, 448), (500, 499)])
def test_equals_scipy_on_samples(n: int, m: int) -> None:
    generator = np.random.default_rng(n)
    for shift in (0.0, 0.3, 0.8, 2.0):
        before, after = generator.normal(size=n), generator.normal(size=m) + shift
        result = ks_2samp(before, after, method="exact")
        k = round(result.statistic * math.lcm(n, m))
        assert math.exp(log_p_unequal(k, n, m)) == pytest.approx(result.pvalue, rel=1e-10)


@pytest.mark.parametrize("n", [8, 33, 192, 1024])
def test_equal_sizes_agree_with_the_closed_form(n: int) -> None:
    steps = np.unique(np.linspace(0, n, 40).astype(int))
    assert np.array_equal(log_p_unequal(steps, n, n), log_p_table(n)[steps])
    paths = [unequal._exact_log_p(int(h), n, n) for h in steps]
    assert paths == pytest.approx(log_p_table(n)[steps], rel=1e-10, abs=1e-10)


def test_nothing_changes_where_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = np.arange(0, 1001, 37)
    compiled = log_p_unequal(steps, 250, 80)
    monkeypatch.setattr(unequal, "_walk", lambda: unequal._reaching_share)
    assert log_p_unequal(steps, 250, 80) == pytest.approx(compiled, rel=1e-13)


def test_it_stays_finite_where_p_underflows() -> None:
    k = math.lcm(700, 650) * 96 // 100
    log_p = log_p_unequal([k, math.lcm(700, 650)], 700, 650)
    assert np.isfinite(log_p).all()
    assert log_p[0] == pytest.approx(float(counted(k, 700, 650)), rel=1e-12)
    assert log_p[0] < math.log(1e-308)
    one_order = math.log(2) + math.lgamma(701) + math.lgamma(651) - math.lgamma(1351)
    assert log_p[1] == pytest.approx(one_order, rel=1e-12)


def test_the_whole_range_of_scales_is_walked() -> None:
    log_p = log_p_unequal([math.lcm(6001, 6000)], 6001, 6000)
    assert log_p[0] == pytest.approx(
        math.log(2) + math.lgamma(6002) + math.lgamma(6001) - math.lgamma(12002), rel=1e-12
    )


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 60), m=st.integers(1, 60), data=st.data())
def test_it_never_increases_and_does_not_depend_on_the_order(n: int, m: int, data: st.DataObject) -> None:
    steps = data.draw(st.lists(st.integers(0, math.lcm(n, m)), min_size=2, max_size=20).map(sorted))
    log_p = log_p_unequal(steps, n, m)
    assert (log_p <= 0.0).all()
    assert (np.diff(log_p) <= 0.0).all()
    assert np.array_equal(log_p, log_p_unequal(steps, m, n))


@settings(max_examples=40, deadline=None)
@given(n=st.integers(10_001, 2**31), m=st.integers(10_001, 2**31), data=st.data())
def test_large_samples_never_increase_and_stay_finite(n: int, m: int, data: st.DataObject) -> None:
    shares = data.draw(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=20).map(sorted))
    common = math.lcm(n, m)
    steps = np.minimum((np.array(shares) * common).astype(np.int64), common)
    log_p = log_p_unequal(steps, n, m)
    assert np.isfinite(log_p).all()
    assert (log_p <= 0.0).all()
    assert (np.diff(log_p) <= -1e-12 * log_p[:-1]).all()


@pytest.mark.parametrize(
    ("n", "m", "errors"),
    [
        (10_000, 9_999, (0.02, 0.05, 0.20)),
        (12_000, 8_001, (0.02, 0.05, 0.20)),
        (33_333, 3_000, (0.02, 0.05, 0.20)),
        (100_000, 1_000, (0.002, 0.01, 0.10)),
        (1_000_000, 100, (0.02, 0.10, 0.50)),
    ],
)
def test_the_limit_law_keeps_the_stated_error(n: int, m: int, errors: tuple[float, ...]) -> None:
    assert n * m <= EXACT_PRODUCT
    common, effective = math.lcm(n, m), n * m / (n + m)
    z = np.array([0.4, 0.7, 1.0, 1.36, 1.6, 2.5, 3.3, 4.6, 7.0, 9.0, 15.0])
    steps = np.array([int(value / math.sqrt(effective) * common) for value in z if value**2 < effective])
    exact = np.array([unequal._exact_log_p(int(k), n, m) for k in steps])
    limit = unequal._limit_log_p(steps, n, m)
    error = np.abs(np.expm1(limit - exact))
    for lowest, allowed in zip((0.01, 1e-20, 1e-200), errors, strict=True):
        assert error[exact > math.log(lowest)].max() < allowed
    far = exact < math.log(0.5)
    assert (np.abs(limit - exact)[far] < -0.005 * exact[far]).all()


def test_above_the_bound_it_is_the_limit_law_at_the_effective_size() -> None:
    n, m = 16_777_216, 16_000_000
    common, effective = math.lcm(n, m), n * m / (n + m)
    z = np.array([0.3, 0.9, 1.36, 2.0])
    steps = (z / math.sqrt(effective) * common).astype(np.int64)
    assert np.exp(log_p_unequal(steps, n, m)) == pytest.approx(kstwobign.sf(z), rel=2e-3)
    assert log_p_unequal([0, common], n, m) == pytest.approx(
        [0.0, math.lgamma(n + 1) + math.lgamma(m + 1) - math.lgamma(n + m + 1)], rel=1e-6
    )


def test_shape_and_kind_of_the_steps() -> None:
    steps = np.array([[3, 0, 33], [3, 7, 1]])
    log_p = log_p_unequal(steps, 33, 11)
    assert log_p.shape == (2, 3)
    assert log_p.dtype == np.float64
    assert log_p[0, 0] == log_p[1, 0]
    assert np.array_equal(log_p_unequal(torch.tensor(steps), 33, 11), log_p)
    assert log_p_unequal([], 33, 11).shape == (0,)
    assert log_p_unequal(5, 33, 11).shape == ()


def test_what_is_no_statistic_is_refused() -> None:
    with pytest.raises(UnitError, match=r"at least 1 value per sample, got n = 0 and m = 5\. Leave"):
        log_p_unequal([0], 0, 5)
    with pytest.raises(
        UnitError, match=r"k must lie in 0\.\.lcm\(n, m\) = 0\.\.12, got values from 2 to 13\. Pass the"
    ):
        log_p_unequal([2, 13], 4, 6)
    with pytest.raises(UnitError, match=r"got values from -1 to 3"):
        log_p_unequal([3, -1], 4, 6)
    with pytest.raises(UnitError, match=r"is an integer, got dtype float64\. Pass k = D \* 12 as integers"):
        log_p_unequal([0.5], 4, 6)
