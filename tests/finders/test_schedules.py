"""Densities per round: end points, shapes, exact counts."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ks_lottery.errors import OptionError
from ks_lottery.finders.schedules import SCHEDULES, kept_counts, round_densities


@given(
    st.sampled_from(SCHEDULES),
    st.floats(0.001, 0.999),
    st.integers(1, 30),
    st.floats(0.05, 0.95),
    st.integers(1000, 10**9),
)
def test_density_falls_and_ends_exactly_where_it_is_asked_to(
    schedule: str, density: float, rounds: int, keep: float, total: int
) -> None:
    densities = round_densities(schedule, density, rounds, keep)  # type: ignore[arg-type]
    assert densities[-1] == density
    assert densities[0] < 1
    assert all(later < earlier for earlier, later in pairwise(densities))
    assert schedule == "geometric" or len(densities) == rounds
    counts = kept_counts(total, densities)
    assert counts[-1] == round(density * total)
    assert all(1 <= later <= earlier for earlier, later in pairwise([total, *counts]))


@given(st.integers(1000, 10**9), st.integers(1, 25))
def test_a_round_of_the_paper_keeps_four_fifths(total: int, rounds: int) -> None:
    densities = round_densities("geometric", 0.8**rounds)
    assert densities == pytest.approx([0.8**number for number in range(1, rounds + 1)])
    for number, count in enumerate(kept_counts(total, densities), start=1):
        assert abs(count - total * 0.8**number) <= number + 1


def test_the_last_geometric_round_stops_at_the_density() -> None:
    assert round_densities("geometric", 0.5) == pytest.approx([0.8, 0.64, 0.512, 0.5])
    assert round_densities("geometric", 0.9) == [0.9]
    assert round_densities("geometric", 0.25, keep=0.5) == [0.5, 0.25]


def test_the_other_schedules_have_their_shapes() -> None:
    assert round_densities("linear", 0.3, rounds=7) == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])
    assert round_densities("exponential", 0.01, rounds=2) == pytest.approx([0.1, 0.01])
    assert round_densities("cubic", 0.2, rounds=2) == pytest.approx([0.2 + 0.8 / 8, 0.2])
    assert kept_counts(1000, round_densities("linear", 0.3, rounds=7)) == [900, 800, 700, 600, 500, 400, 300]


def test_wrong_options_are_refused() -> None:
    with pytest.raises(OptionError, match="Unknown schedule 'square'; must be one of geometric, exponential, linear, "):
        round_densities("square", 0.1)  # type: ignore[arg-type]
    for density in (0.0, 1.0, float("nan")):
        with pytest.raises(OptionError, match="density=.* must lie between 0 and 1"):
            round_densities("linear", density)
    with pytest.raises(OptionError, match="rounds=0 must be at least 1"):
        round_densities("linear", 0.1, rounds=0)
    with pytest.raises(OptionError, match="keep=1.0 must lie between 0 and 1"):
        round_densities("geometric", 0.1, keep=1.0)
    with pytest.raises(OptionError, match="The density after round 2 is 0; it must be above 0"):
        kept_counts(10, [0.5, 0])
    with pytest.raises(OptionError, match="Density rises from 0.5 to 0.6 in round 2; rounds only drop units"):
        kept_counts(10, [0.5, 0.6])
    with pytest.raises(OptionError, match=r"Density 0.04 after round 2 leaves none of 10 units. End at .* least 0.1"):
        kept_counts(10, [0.5, 0.04])
