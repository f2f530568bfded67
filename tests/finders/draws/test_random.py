"""Tickets by chance: the same everywhere, independent of other groups, with exact counts."""

import subprocess
import sys

import numpy as np
import pytest

from ks_lottery.checkpoints.reader import ModelCheckpoint
from ks_lottery.errors import OptionError
from ks_lottery.finders.base import Evidence, UnitScores
from ks_lottery.finders.densities import layer_counts
from ks_lottery.finders.draws.random import Random
from ks_lottery.finders.search import find_ticket
from ks_lottery.finders.select import Counts, Density, TopK
from ks_lottery.units.granularity import GRANULARITIES, granularity
from ks_lottery.units.slab import Slab, UnitGroup
from tests.tiny_models import tiny_llama


def group(name: str, units: int) -> UnitGroup:
    return UnitGroup(name, (Slab(name, None),), units)


def scored(finder: Random, *groups: UnitGroup) -> list[UnitScores]:
    return list(finder.score(groups, Evidence()))


@pytest.mark.parametrize("units", GRANULARITIES.names())
@pytest.mark.parametrize("kind", ["update", "weight"])
def test_a_ticket_of_every_granularity_and_kind(units: str, kind: str) -> None:
    ticket = find_ticket(tiny_llama(), units=units, finder=Random(kind, seed=3), selector=TopK(1))  # type: ignore[arg-type]
    assert sum(map(len, ticket.indices.values())) == 1
    assert (ticket.kind, ticket.provenance.method) == (kind, "random")
    assert ticket.provenance.details["finder_options"] == {"kind": kind, "seed": 3}


def test_a_groups_draws_depend_on_seed_and_name_alone() -> None:
    alone, beside = scored(Random(), group("b", 50))[0], scored(Random(), group("a", 7), group("b", 50))[1]
    assert (alone.score == beside.score).all()
    assert alone.changed.all()
    assert (scored(Random(), group("a", 50))[0].score != alone.score).all()
    assert (scored(Random(seed=1), group("b", 50))[0].score != alone.score).all()
    longer = scored(Random(), group("b", 90))[0]
    assert (longer.score[:50] == alone.score).all()


def test_the_draws_of_a_seed_are_fixed_for_ever() -> None:
    (entry,) = scored(Random(seed=5), group("layers.0.heads", 3))
    assert entry.score.tolist() == [0.8386275421575677, 0.7367267060812459, 0.448675918994089]


def test_every_unit_has_the_same_chance() -> None:
    hits = np.zeros(40)
    for seed in range(500):
        scores = scored(Random(seed=seed), group("a", 25), group("b", 15))
        chosen = Density(0.25).select(scores, [entry.changed for entry in scores])
        hits[:25][chosen[0]] += 1
        hits[25:][chosen[1]] += 1
    assert hits.sum() == 500 * 10
    assert (np.abs(hits - 125) < 5 * np.sqrt(500 * 0.25 * 0.75)).all()


def test_layer_densities_are_met_exactly() -> None:
    layout = ModelCheckpoint(tiny_llama()).layout()
    groups = granularity("weights").groups(layout)
    counts = layer_counts(groups, layout.shapes, 0.1, "erk")
    ticket = find_ticket(tiny_llama(), units="weights", finder=Random("weight"), selector=Counts(counts))
    assert {name: len(units) for name, units in ticket.indices.items()} == counts


def test_wrong_options_are_refused() -> None:
    with pytest.raises(OptionError, match=r"Random\(seed=-1\): the seed must be 0 or more"):
        Random(seed=-1)
    with pytest.raises(OptionError, match=r"Random\(kind='both'\): must be one of update, weight"):
        Random(kind="both")  # type: ignore[arg-type]


def test_finders_load_without_torch() -> None:
    code = "import sys; from ks_lottery.finders.base import FINDERS; FINDERS.names(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
