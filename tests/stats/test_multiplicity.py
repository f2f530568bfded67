from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from ks_lottery.errors import OptionError, UnitError
from ks_lottery.stats.multiplicity import CORRECTIONS, adjust_log_p, rejected
from ks_lottery.stats.pvalues import log_p_table

p_lists = st.lists(st.one_of(st.floats(1e-12, 1.0), st.sampled_from([1.0, 0.05, 1e-3])), min_size=1, max_size=30)


def rejected_by_steps(p: list[Fraction], alpha: Fraction, correction: str) -> list[bool]:
    """The textbook procedures with a strict comparison, in exact arithmetic."""
    tests = len(p)
    order = sorted(range(tests), key=lambda i: p[i])
    if correction == "none":
        chosen = [i for i in order if p[i] < alpha]
    elif correction == "bonferroni":
        chosen = [i for i in order if p[i] * tests < alpha]
    elif correction == "holm":  # step down until the first failure
        chosen = []
        for done, i in enumerate(order):
            if not p[i] * (tests - done) < alpha:
                break
            chosen.append(i)
    else:  # step up: the largest rank that passes takes all before it
        passing = [rank for rank, i in enumerate(order, start=1) if p[i] * tests < alpha * rank]
        chosen = order[: max(passing, default=0)]
    return [i in chosen for i in range(tests)]


@settings(max_examples=150, deadline=None)
@given(p_lists)
def test_bh_equals_scipy(p):
    assert np.exp(adjust_log_p(np.log(p), "bh")) == pytest.approx(false_discovery_control(p, method="bh"), rel=1e-12)


@settings(max_examples=150, deadline=None)
@given(p_lists)
def test_bonferroni_and_holm_equal_their_definitions(p):
    tests = len(p)
    assert np.exp(adjust_log_p(np.log(p), "bonferroni")) == pytest.approx(np.minimum(1, np.array(p) * tests), rel=1e-12)
    ascending = sorted(p)
    stepwise = [min(1, max((tests - j) * ascending[j] for j in range(i + 1))) for i in range(tests)]
    expected = [stepwise[ascending.index(value)] for value in p]
    assert np.exp(adjust_log_p(np.log(p), "holm")) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 6000), max_size=25),
    st.sampled_from([1.0, 0.5, 0.05, 1e-3, 1e-300]),
    st.sampled_from(CORRECTIONS),
)
def test_rejected_equals_the_exact_procedure_also_where_p_underflows(exponents, alpha, correction):
    expected = rejected_by_steps([Fraction(1, 2) ** e for e in exponents], Fraction(alpha), correction)
    log_p = -np.log(2) * np.array(exponents, dtype=np.float64)
    mask = rejected(log_p, alpha, correction)
    assert mask.dtype == bool
    assert mask.tolist() == expected


@settings(max_examples=100, deadline=None)
@given(p_lists, st.floats(1e-6, 1.0), st.randoms(use_true_random=False))
def test_order_and_nesting(p, alpha, random):
    log_p = np.log(p)
    shuffle = random.sample(range(len(p)), len(p))
    masks = {}
    for correction in CORRECTIONS:
        adjusted = adjust_log_p(log_p, correction)
        assert (log_p <= adjusted).all()
        assert (adjusted <= 0).all()
        order = np.argsort(log_p, kind="stable")
        assert (np.diff(adjusted[order]) >= 0).all()
        assert np.array_equal(adjust_log_p(log_p[shuffle], correction), adjusted[shuffle])
        masks[correction] = rejected(log_p, alpha, correction)
        assert np.array_equal(masks[correction], adjusted < np.log(alpha))
    assert (masks["bonferroni"] <= masks["holm"]).all()
    assert (masks["holm"] <= masks["bh"]).all()
    assert (masks["bh"] <= masks["none"]).all()


def test_the_comparison_is_strict():
    log_p = np.log([0.05, 0.04, 1.0])
    assert rejected(log_p, 0.05).tolist() == [False, True, False]
    assert rejected(log_p, 1.0).tolist() == [True, True, False]
    for correction in CORRECTIONS:
        assert not rejected(np.zeros(5), 1.0, correction).any()


def test_p_values_below_the_smallest_float_keep_their_order():
    log_p = log_p_table(4096)[[4096, 4000, 3000, 0]]
    assert np.exp(log_p)[:3].tolist() == [0, 0, 0]
    for correction in CORRECTIONS:
        adjusted = adjust_log_p(log_p, correction)
        assert adjusted[0] < adjusted[1] < adjusted[2] < adjusted[3] == 0
        assert rejected(log_p, 1e-300, correction).tolist() == [True, True, True, False]


def test_zero_p_and_no_tests():
    assert rejected([-np.inf, 0.0], 0.05, "bh").tolist() == [True, False]
    for correction in CORRECTIONS:
        assert adjust_log_p([], correction).shape == (0,)


def test_input_is_not_changed():
    log_p = np.log([0.5, 0.01])
    for correction in CORRECTIONS:
        adjust_log_p(log_p, correction)[:] = 0
    assert np.exp(log_p) == pytest.approx([0.5, 0.01])


def test_what_cannot_be_corrected_is_refused():
    message = r"Unknown correction 'bonferoni'\. Did you mean 'bonferroni'\? Available: none, bonferroni, holm, bh\."
    with pytest.raises(OptionError, match=message):
        adjust_log_p([-1.0], "bonferoni")
    with pytest.raises(OptionError, match=r"Unknown correction 'q'\. Available"):
        rejected([-1.0], 0.05, "q")
    with pytest.raises(OptionError, match=r"alpha must lie in \(0, 1\], got 0\. The paper's strict setting is 0\.05"):
        rejected([-1.0], 0)
    with pytest.raises(UnitError, match=r"shape \[tests\], got \(1, 2\)\. Concatenate what is corrected together"):
        adjust_log_p([[-1.0, -2.0]], "bh")
    with pytest.raises(UnitError, match=r"holds 0\.5 at position 1, .* Pass logarithms, not p-values"):
        adjust_log_p([-1.0, 0.5], "none")
    with pytest.raises(UnitError, match=r"holds nan at position 0"):
        adjust_log_p([np.nan], "none")
