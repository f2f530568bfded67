"""The tail of the binomial distribution is scipy's where that does not underflow, and goes on below."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from ks_lottery.errors import OptionError
from ks_lottery.ticket.ownership.chance import log10_tail, require_level


@given(st.integers(1, 400), st.data(), st.floats(0.001, 0.999))
def test_it_is_the_exact_test_of_scipy(trials: int, data: st.DataObject, chance: float) -> None:
    hits = data.draw(st.integers(0, trials))
    expected = binomtest(hits, trials, chance, alternative="greater").pvalue
    if expected > 1e-280:
        assert log10_tail(hits, trials, chance) == pytest.approx(math.log10(expected), abs=1e-9)


def test_what_the_paper_card_says_of_841_bits() -> None:
    """A random string matches at least 65 % with probability 1e-18, at least 60 % with 3e-9."""
    assert log10_tail(math.ceil(0.65 * 841), 841, 0.5) == pytest.approx(-18, abs=0.6)
    assert log10_tail(math.ceil(0.60 * 841), 841, 0.5) == pytest.approx(math.log10(3e-9), abs=0.2)


def test_it_does_not_underflow() -> None:
    assert log10_tail(2975, 2975, 0.5) == pytest.approx(-2975 * math.log10(2), rel=1e-12)
    assert log10_tail(0, 10, 0.5) == 0.0


def test_wrong_numbers() -> None:
    for hits, trials in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(OptionError, match=f"{hits} hits in {trials} trials"):
            log10_tail(hits, trials, 0.5)
    for chance in (0.0, 1.0, math.nan):
        with pytest.raises(OptionError, match="the probability of a hit lies between 0 and 1"):
            log10_tail(1, 2, chance)
    for level in (0.0, 1.0, math.nan):
        with pytest.raises(OptionError, match="a claim holds below a p-value between 0 and 1"):
            require_level(level)
