import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ks_lottery.errors import TicketError
from ks_lottery.finders import search, streaming
from ks_lottery.finders.base import UnitScores
from ks_lottery.finders.search import find_ticket
from ks_lottery.finders.select import Density, TopK, largest
from ks_lottery.finders.streaming import largest_streamed
from ks_lottery.units.slab import Slab, UnitGroup
from tests.tiny_models import shifted, tiny_llama


def entry(values: np.ndarray, name: str) -> UnitScores:
    group = UnitGroup(name, (Slab(name, None),), len(values))
    return UnitScores(group, score=values, changed=np.ones(len(values), dtype=bool))


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 5),
    st.sampled_from([None, 1, 4]),
    st.sampled_from([1, 30, 2**22]),
    st.booleans(),
)
def test_equals_the_selection_that_holds_everything(seed, num_groups, levels, held, single):
    generator = np.random.default_rng(seed)
    values = [
        generator.normal(size=generator.integers(1, 200)) * 10.0 ** generator.integers(-9, 9) for _ in range(num_groups)
    ]
    if levels:
        values = [np.round(np.tanh(one) * levels) / levels for one in values]
    if single:
        values = [one.astype(np.float32) for one in values]
    candidates = [generator.random(len(one)) < 0.7 for one in values]
    available = int(sum(mask.sum() for mask in candidates))
    if not available:
        return
    k = int(generator.integers(1, available + 1))
    scores = [entry(one, str(i)) for i, one in enumerate(values)]
    before, streaming._HELD = streaming._HELD, held
    try:
        chosen = largest_streamed(lambda: iter(zip(scores, candidates, strict=True)), k)
    finally:
        streaming._HELD = before
    expected = largest(values, candidates, k)
    assert [one.tolist() for one in chosen] == [one.tolist() for one in expected]
    assert sum(len(one) for one in chosen) == k


def test_too_few_candidates():
    scores = entry(np.arange(5.0), "w")
    mask = np.array([True, False, True, False, False])
    with pytest.raises(TicketError, match=r"3 units are asked for, but only 2 can be selected .* Ask for fewer"):
        largest_streamed(lambda: iter([(scores, mask)]), 3)


@pytest.mark.parametrize("selector", [TopK(3), Density(0.01), TopK(1, scope="group"), Density(0.05, scope="group")])
@pytest.mark.parametrize(("units", "finder"), [("token_rows", "ks"), ("heads", "ks"), ("weights", "magnitude")])
def test_the_ticket_is_the_same_however_many_scores_are_held(selector, units, finder, monkeypatch):
    before = tiny_llama()
    after = shifted(before, [3, 5])
    for parameter in after.parameters():
        parameter.data += 0.01 * parameter.data.roll(1)
    held = find_ticket(before, after, units=units, finder=finder, selector=selector)
    monkeypatch.setattr(search, "_HELD_UNITS", 0)
    streamed = find_ticket(before, after, units=units, finder=finder, selector=selector)
    assert streamed == held
    assert streamed.provenance.details == held.provenance.details
    for name, selection in held.selections.items():
        for column, values in selection.columns.items():
            np.testing.assert_array_equal(streamed.selections[name].columns[column], values)
