"""Heads and neurons in one competition; that no weight has two owners stands in the conformance tests."""

import numpy as np
import pytest

from ks_lottery.errors import UnitError
from ks_lottery.finders.search import find_ticket
from ks_lottery.finders.select import Density, TopK
from ks_lottery.units.granularity import granularity
from ks_lottery.units.slab import parameters_of
from ks_lottery.units.supernet import Supernet
from tests.tiny_models import tiny_llama
from tests.units.models import CASES, layout_of


@pytest.mark.parametrize("case", CASES)
def test_its_units_are_those_of_heads_and_neurons(case: str) -> None:
    layout = layout_of(case)
    parts = [granularity(name).groups(layout) for name in ("heads", "neurons")]
    assert Supernet().groups(layout) == (*parts[0], *parts[1])
    assert not set(parameters_of(parts[0])) & set(parameters_of(parts[1]))


def test_patterns_choose_among_all() -> None:
    names = [group.name for group in Supernet(only=("layers.1.*",)).groups(layout_of("llama"))]
    assert names == ["layers.1.heads", "layers.1.neurons"]
    assert [group.name for group in Supernet(only=("*.neurons",)).groups(layout_of("llama"))] == [
        "layers.0.neurons", "layers.1.neurons",
    ]  # fmt: skip
    with pytest.raises(UnitError, match=r"units='supernet', only=\('x',\): 'x' matches none of the 4 groups"):
        Supernet(only=("x",)).groups(layout_of("llama"))


def test_a_ticket_counts_units_and_its_weights_are_those_of_its_units() -> None:
    model = tiny_llama()
    ticket = find_ticket(model, units="supernet", finder="random", selector=Density(0.5))
    assert len(ticket) == (2 * 2 + 2 * 48) // 2
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    weights = sum(
        len(selection.indices) * selection.group.weights_per_unit(shapes) for selection in ticket.selections.values()
    )
    assert ticket.num_trainable() == weights
    one = find_ticket(model, units="supernet", finder="random", selector=TopK(1))
    assert np.sum([len(selection.indices) for selection in one.selections.values()]) == 1
