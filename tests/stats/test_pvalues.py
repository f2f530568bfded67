import math
import subprocess
import sys

import mpmath
import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp, kstwobign

from ks_lottery.errors import OptionError, UnitError
from ks_lottery.stats.pvalues import critical_statistic, log_p_table, log_p_values

SIZES = [8, 9, 17, 33, 192, 576, 1024, 4096, 10000]


def exact_counts(n: int) -> tuple[list[int], int]:
    """P(D >= h/n) for h = 1..n as integers over the common denominator C(2n, n)."""
    binomials = [math.comb(2 * n, n)]
    for m in range(n):
        binomials.append(binomials[-1] * (n - m) // (n + m + 1))
    tails = []
    for h in range(1, n + 1):
        terms = binomials[h::h]
        tails.append(2 * (sum(terms[::2]) - sum(terms[1::2])))
    return tails, binomials[0]


@pytest.mark.parametrize("n", SIZES)
def test_table_equals_exact_counting(n):
    table = log_p_table(n)
    assert table.shape == (n + 1,)
    assert table.dtype == np.float64
    assert table[0] == table[1] == 0.0
    tails, all_paths = exact_counts(n)
    tolerance = 1e-13 + 1e-14 * n
    assert tolerance < 1.1e-10
    with mpmath.workdps(30):
        for h in range(2, n + 1):
            complement = mpmath.mpf(all_paths - tails[h - 1]) / all_paths
            log_p = mpmath.log1p(-complement) if complement < 0.9 else mpmath.log(tails[h - 1]) - mpmath.log(all_paths)
            difference = float(table[h] - log_p)
            assert abs(difference) < tolerance, h  # relative error of p
            if log_p < -1e-290:
                assert abs(difference) < -tolerance * float(log_p), h


@pytest.mark.parametrize("n", [*SIZES, 50_000])
def test_table_never_increases_and_never_underflows(n):
    table = log_p_table(n)
    assert np.isfinite(table).all()
    assert (np.diff(table) <= 0).all()
    assert (table <= 0).all()
    assert table[n] == pytest.approx(math.log(2) + 2 * math.lgamma(n + 1) - math.lgamma(2 * n + 1), rel=1e-12)


def test_table_of_the_smallest_samples_by_enumeration():
    assert np.exp(log_p_table(1)) == pytest.approx([1, 1])
    assert np.exp(log_p_table(2)) == pytest.approx([1, 1, 1 / 3])
    assert np.exp(log_p_table(3)) == pytest.approx([1, 1, 12 / 20, 2 / 20])


def test_table_is_kept_and_cannot_be_changed():
    assert log_p_table(64) is log_p_table(64)
    with pytest.raises(ValueError, match="read-only"):
        log_p_table(64)[3] = 0.0


@pytest.mark.parametrize(
    ("h", "p"),
    [
        (887, 1.685e-84),
        (554, 4.604e-33),
        (334, 2.892e-12),
        (224, 9.526e-6),
        (120, 0.05945),
        (87, 0.31393),
        (80, 0.41541),
        (42, 0.98247),
    ],
)
def test_published_p_values_of_4096_values(h, p):
    assert float(f"{math.exp(log_p_values([h], 4096)[0]):.4g}") == pytest.approx(p, rel=5e-4)


@pytest.mark.parametrize("n", [8, 31, 150])
def test_equals_scipy_on_samples(n):
    generator = np.random.default_rng(n)
    for shift in (0.0, 0.5, 1.0, 5.0):
        before, after = generator.normal(size=(2, n))
        result = ks_2samp(before, after + shift, method="exact")
        h = round(result.statistic * n)
        assert math.exp(log_p_values([h], n)[0]) == pytest.approx(result.pvalue, rel=1e-10)


def test_large_samples_follow_the_limit_law():
    n = 16_777_216
    h = np.array([500, 2000, 5793, 10000, 20000])
    assert np.exp(log_p_values(h, n)) == pytest.approx(kstwobign.sf(h / math.sqrt(2 * n)), rel=1e-3)


def test_values_keep_shape_and_gather_from_the_table():
    h = np.array([[3, 0, 33], [3, 7, 1]])
    log_p = log_p_values(h, 33)
    assert np.array_equal(log_p, log_p_table(33)[h])
    assert np.array_equal(log_p_values(torch.tensor(h), 33), log_p)
    assert log_p_values([], 33).shape == (0,)
    assert log_p_values(5, 33).shape == ()


def test_values_out_of_range_are_refused():
    with pytest.raises(UnitError, match=r"h must lie in 0\.\.n = 0\.\.33, got values from 2 to 34\. Pass the n"):
        log_p_values([2, 34], 33)
    with pytest.raises(UnitError, match=r"got values from -1 to 3"):
        log_p_values([3, -1], 33)
    with pytest.raises(UnitError, match=r"is an integer, got dtype float64\. Pass h = D \* n"):
        log_p_values([0.03], 33)
    for function in (log_p_table, lambda n: log_p_values([0], n), lambda n: critical_statistic(n, 0.05)):
        with pytest.raises(UnitError, match=r"at least 1 value per sample, got n = 0\. Pass the row length"):
            function(0)


@pytest.mark.parametrize(
    ("n", "units", "d"),
    [
        (576, 1, 0.0800),
        (1024, 1, 0.0600),
        (2048, 1, 0.0424),
        (3584, 1, 0.0321),
        (4096, 1, 0.0300),
        (576, 32_000, 0.1562),
        (1024, 49_152, 0.1190),
        (2048, 128_256, 0.0869),
        (3584, 152_064, 0.0660),
        (4096, 32_000, 0.0586),
    ],
)
def test_published_critical_d(n, units, d):
    h = critical_statistic(n, 0.05 / units)
    assert abs(h / n - d) < 1.0 / n
    assert h / n == pytest.approx(math.sqrt(math.log(2 * units / 0.05) / n), rel=0.03)


@pytest.mark.parametrize("n", [8, 33, 1024])
@pytest.mark.parametrize("alpha", [1e-300, 1e-9, 0.05, 0.5, 0.95, 1.0])
def test_critical_statistic_is_the_first_below_alpha(n, alpha):
    below = np.flatnonzero(log_p_table(n) < math.log(alpha))
    assert critical_statistic(n, alpha) == (below[0] if below.size else n + 1)


def test_alpha_equal_to_a_p_value_is_not_below_it():
    assert critical_statistic(3, float(np.exp(log_p_table(3)[2])) * (1 - 1e-12)) == 3
    assert critical_statistic(3, 0.6 * (1 + 1e-12)) == 2


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.5, float("nan")])
def test_alpha_outside_its_range_is_refused(alpha):
    with pytest.raises(OptionError, match=r"alpha must lie in \(0, 1\], got"):
        critical_statistic(64, alpha)


def test_the_stats_room_imports_neither_torch_nor_scipy():
    code = "import sys, ks_lottery.stats, ks_lottery.stats.unequal as _; print({'torch', 'scipy'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
