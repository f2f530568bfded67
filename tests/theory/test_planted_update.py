"""A teacher differs from its model in the planted units, by the planted size, and nowhere else."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.errors import OptionError, UnitError
from ks_lottery.theory.planted_update import PlantedUnits, plant_units
from ks_lottery.units.granularity import GRANULARITIES
from ks_lottery.units.slab import Slab, UnitGroup
from tests.tiny_models import tiny_llama

SHAPES = {"a": (6, 4), "b": (6,)}
ROWS = (UnitGroup("rows", (Slab("a", 0), Slab("b", 0)), 6),)


def planted(model: torch.nn.Module, units: str, count: int, **options: object) -> PlantedUnits:
    base = open_checkpoint(model)
    groups = GRANULARITIES.get(units)().groups(base.layout())
    shapes = {name: base.shape(name) for name in base.names()}
    return plant_units(groups, shapes, count, **{"seed": 3, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("units", GRANULARITIES.names())
def test_exactly_the_planted_units_differ(units: str) -> None:
    before, after = tiny_llama(), tiny_llama()
    found = planted(before, units, 1, size=0.25)
    found.teach(after)
    ticket = found.ticket(open_checkpoint(before), units)
    masks = ticket.masks()
    assert (len(ticket), ticket.kind, ticket.provenance.method) == (1, "update", "planted")
    for name, value in before.named_parameters():
        moved = after.get_parameter(name) - value
        mask = masks.get(name, torch.zeros_like(value, dtype=torch.bool))
        torch.testing.assert_close(moved[mask].abs(), torch.full_like(moved[mask], 0.25), rtol=0, atol=1e-6)
        assert not moved[~mask].any()


def test_a_weight_ticket_leaves_zeros_and_what_no_unit_owns() -> None:
    before, after = tiny_llama(), tiny_llama()
    found = planted(before, "heads", 2, kind="weight")
    assert not found.delta
    found.teach(after)
    masks = found.ticket(open_checkpoint(before), "heads").masks()
    for name, value in before.named_parameters():
        kept = masks.get(name, torch.ones_like(value, dtype=torch.bool))
        assert torch.equal(after.get_parameter(name), torch.where(kept, value, torch.zeros_like(value)))


def test_other_units_get_nothing_that_was_not_planted() -> None:
    before, after = tiny_llama(), tiny_llama()
    found = planted(before, "token_rows", 4)
    others = np.setdiff1d(np.arange(64), found.indices["input"])
    found.teach(after, {"input": others})
    assert all(torch.equal(value, after.get_parameter(name)) for name, value in before.named_parameters())
    found.teach(after, {"input": np.append(others, found.indices["input"][0])})
    rows = (after.model.embed_tokens.weight != before.model.embed_tokens.weight).any(dim=1).nonzero()
    assert rows.reshape(-1).tolist() == [found.indices["input"][0]]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 8))
def test_a_seed_plants_the_same(seed: int, count: int) -> None:
    groups = (*ROWS, UnitGroup("others", (Slab("c", None),), 3))
    first, second = (plant_units(groups, {**SHAPES, "c": (3,)}, count, seed) for _ in range(2))
    assert first.count == count
    for name, units in first.indices.items():
        assert np.array_equal(units, second.indices[name])
    for name, delta in first.delta.items():
        assert np.array_equal(delta, second.delta[name])
        assert set(np.abs(delta).reshape(-1)) <= {0.0, 0.3}


@pytest.mark.parametrize(
    ("count", "options", "error", "says"),
    [
        (7, {}, UnitError, "7 units are to be planted, but there are 6"),
        (0, {}, OptionError, "0 of 6 units are to be planted, a density of 0"),
        (6, {}, OptionError, "6 of 6 units are to be planted, a density of 1"),
        (2, {"size": float("nan")}, OptionError, "size=nan"),
        (2, {"size": float("inf")}, OptionError, "size=inf"),
        (2, {"size": 0.0}, OptionError, "size=0.0"),
        (2, {"kind": "wait"}, OptionError, "kind='wait': must be update or weight"),
    ],
)
def test_what_cannot_be_planted(count: int, options: dict[str, object], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        plant_units(ROWS, SHAPES, count, 0, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("groups", [(*ROWS, UnitGroup("columns", (Slab("a", 1),), 4))])
def test_units_that_share_a_weight(groups: Sequence[UnitGroup]) -> None:
    with pytest.raises(UnitError, match="Two units share weights of 'a'"):
        plant_units(groups, SHAPES, 2, 0)
