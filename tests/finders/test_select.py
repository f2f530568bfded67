"""Selectors: exact counts, deterministic ties, corrections."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ks_lottery.errors import OptionError, TicketError, UnitError
from ks_lottery.finders.base import UnitScores
from ks_lottery.finders.select import Alpha, Counts, Density, TopK, describe, largest
from ks_lottery.units.slab import Slab, UnitGroup


def scores(*groups: list[float], log_p: bool = False) -> list[UnitScores]:
    return [
        UnitScores(
            UnitGroup(f"g{number}", (Slab("w", 0),), len(values)),
            score=np.array(values, dtype=float),
            changed=np.ones(len(values), dtype=bool),
            log_p=np.log(values) if log_p else None,
        )
        for number, values in enumerate(groups)
    ]


def everything(entries: list[UnitScores]) -> list[np.ndarray]:
    return [entry.changed for entry in entries]


@given(
    st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=20), min_size=1, max_size=3),
    st.data(),
)
def test_top_k_is_sorting_by_score_then_position(values: list[list[int]], data: st.DataObject) -> None:
    entries = scores(*values)
    allowed = [np.array(data.draw(st.lists(st.booleans(), min_size=len(v), max_size=len(v)))) for v in values]
    flat = [(-v, g, i) for g, group in enumerate(values) for i, v in enumerate(group) if allowed[g][i]]
    if not flat:
        return
    k = data.draw(st.integers(1, len(flat)))
    expected = sorted(flat)[:k]
    chosen = TopK(k).select(entries, allowed)
    assert [units.tolist() for units in chosen] == [
        sorted(i for _, g, i in expected if g == number) for number in range(len(values))
    ]


def test_top_k_per_group_and_density() -> None:
    entries = scores([1, 5, 3, 4], [9, 8, 7, 6, 10, 0])
    assert [u.tolist() for u in TopK(2, "group").select(entries, everything(entries))] == [[1, 3], [0, 4]]
    assert [u.tolist() for u in Density(0.3).select(entries, everything(entries))] == [[], [0, 1, 4]]
    assert [u.tolist() for u in Density(0.5, "group").select(entries, everything(entries))] == [[1, 3], [0, 1, 4]]
    assert [u.tolist() for u in Density(0.001).select(entries, everything(entries))] == [[], [4]]


def test_alpha_follows_the_correction() -> None:
    entries = scores([0.001, 0.019, 0.3], [0.04, 0.9], log_p=True)

    def chosen(correction: str) -> list[list[int]]:
        return [u.tolist() for u in Alpha(0.05, correction).select(entries, everything(entries))]

    assert chosen("none") == [[0, 1], [0]]
    assert chosen("bonferroni") == [[0], []]
    assert chosen("holm") == [[0], []]
    assert chosen("bh") == [[0, 1], []]


def test_alpha_counts_only_candidates() -> None:
    entries = scores([0.02, 0.9, 0.9, 0.9], log_p=True)
    few = [np.array([True, True, False, False])]
    assert Alpha(0.05, "bonferroni").select(entries, few)[0].tolist() == [0]
    with pytest.raises(
        TicketError, match=r"No unit has p < 0.05 \(correction bonferroni\): the smallest of 4 p-values"
    ):
        Alpha(0.05, "bonferroni").select(entries, everything(entries))


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.1, float("nan")])
def test_alpha_outside_its_range(alpha: float) -> None:
    with pytest.raises(OptionError, match="alpha must be above 0 and at most 1"):
        Alpha(alpha)


def test_wrong_options() -> None:
    with pytest.raises(OptionError, match=r"Alpha\(correction='fdr'\): must be one of none, bonferroni, holm, bh"):
        Alpha(correction="fdr")
    with pytest.raises(OptionError, match=r"TopK\(0\): k must be at least 1"):
        TopK(0)
    with pytest.raises(OptionError, match=r"TopK\(scope='layer'\): must be one of global, group"):
        TopK(1, "layer")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"Density\(1.0\): rho must lie between 0 and 1"):
        Density(1.0)
    with pytest.raises(OptionError, match=r"Density\(scope='layer'\)"):
        Density(0.5, "layer")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="Alpha needs p-values, but the finder gives none for group 'g0'"):
        Alpha().select(scores([1.0]), [np.array([True])])


def test_selectors_describe_themselves() -> None:
    assert describe(TopK(3)) == {"name": "TopK", "k": 3, "scope": "global"}
    assert describe(Alpha()) == {"name": "Alpha", "alpha": 0.05, "correction": "none"}
    assert describe(Counts({"a": 2, "b": 0})) == {"name": "Counts", "counts": {"a": 2, "b": 0}}


def test_counts_are_taken_in_each_group() -> None:
    entries = scores([1, 5, 3, 4], [9, 8, 7], [1, 1, 1])
    chosen = Counts({"g1": 0, "g0": 3, "g2": 2}).select(entries, everything(entries))
    assert [units.tolist() for units in chosen] == [[1, 2, 3], [], [0, 1]]
    with pytest.raises(TicketError, match="Group 'g1': 2 units are asked for, but only 1 of 3 can be selected"):
        Counts({"g0": 1, "g1": 2, "g2": 0}).select(entries, [np.ones(4, bool), np.arange(3) < 1, np.ones(3, bool)])
    with pytest.raises(OptionError, match=r"Counts has no number for groups \['g1', 'g2'\], and numbers for \['h'\]"):
        Counts({"g0": 1, "h": 2}).select(entries, everything(entries))


@pytest.mark.parametrize("counts", [{}, {"a": 0}, {"a": -1, "b": 2}, {"a": 1.5}, {"a": True}])
def test_counts_are_whole_numbers(counts: dict[str, int]) -> None:
    with pytest.raises(OptionError, match=r"Counts\(.*\): each must be a whole number of 0 or more, and one above 0"):
        Counts(counts)


def test_a_score_that_is_no_number_is_refused() -> None:
    entries = scores([1.0, float("nan")], [2.0])
    for selector in (TopK(1), TopK(1, "group"), Density(0.5), Counts({"g0": 1, "g1": 1})):
        with pytest.raises(UnitError, match="The score of unit 1 of group 'g0' is NaN"):
            selector.select(entries, everything(entries))
    assert [u.tolist() for u in TopK(1).select(entries, [np.array([True, False]), np.array([True])])] == [[], [0]]


def test_a_mask_may_be_left_out() -> None:
    values = [np.array([1.0, 3.0]), np.array([2.0, -np.inf])]
    assert [units.tolist() for units in largest(values, [None, None], 3)] == [[0, 1], [0]]
    assert [units.tolist() for units in largest(values, [None, np.array([False, True])], 3)] == [[0, 1], [1]]
    assert [units.tolist() for units in largest(values, [None, None], 0)] == [[], []]
