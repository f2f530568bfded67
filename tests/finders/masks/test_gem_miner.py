"""Gem-Miner against its algorithm, its schedule and small runs."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_tasks import matrices

from ks_lottery.errors import OptionError, UnitError
from ks_lottery.finders.base import UnitScores
from ks_lottery.finders.masks.frozen import Frozen
from ks_lottery.finders.masks.gem_miner import GemMiner, Survivors
from ks_lottery.finders.select import Density, Scope
from tests.finders.masks.corners import CHANCE, accuracy_under, evidence, masks_of, random_network, shuffled
from tests.finders.masks.models import kept_units
from tests.finders.masks.planted_update import planted_update, precision


@pytest.mark.parametrize(
    ("density", "steps", "every", "drops", "rounded_up"),
    [(0.0144, 150, 5, 29, 0.01436), (0.1, 100, 8, 12, 0.09998)],
)
def test_the_papers_schedules_end_at_their_density(
    density: float, steps: int, every: int, drops: int, rounded_up: float
) -> None:
    """The official code rounds what it drops up, each time; here each count is that of the schedule itself."""
    densities = GemMiner(density=density, steps=steps, every=every).drop_densities()
    assert len(densities) == drops
    share = 1 - math.exp(math.log(density) / drops)
    left = 100_000
    for one in densities:
        left -= math.ceil(share * left)
        assert 0 <= round(one * 100_000) - left <= 7
    assert left / 100_000 == rounded_up
    assert round(densities[-1] * 100_000) == round(density * 100_000)


def alive_after(
    sizes: list[int], densities: list[float], scope: Scope, seed: int
) -> tuple[Survivors, list[np.ndarray]]:
    """A search of random steps, a drop every second one, and who is alive after each step."""
    generator = torch.Generator().manual_seed(seed)
    how = Survivors(sizes, densities, scope, every=2, penalty=0.0)
    scores, alive = torch.rand(sum(sizes), generator=generator), [np.ones(sum(sizes), dtype=bool)]
    for step in range(2 * len(densities) + 3):
        assert ((how.mask(scores) == 1).numpy() == (alive[-1] & (scores > 0.5).numpy())).all()
        scores += torch.randn(sum(sizes), generator=generator)
        how.after_step(scores, step)
        assert 0.0 <= float(scores.min()) <= float(scores.max()) <= 1.0
        alive.append(how.alive.numpy().copy())
    order = how.order(scores).numpy()
    for drop, density in enumerate(densities, start=1):
        kept = alive[2 * drop]
        if 0 < kept.sum() < len(kept):
            assert order[kept].min() > order[~kept].max(), density
    return how, alive


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    density=st.floats(0.02, 0.95),
    drops=st.integers(1, 6),
    scope=st.sampled_from(["global", "group"]),
    seed=st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_the_living_only_become_fewer_and_are_counted_exactly(
    sizes: list[int], density: float, drops: int, scope: Scope, seed: int
) -> None:
    densities = [density ** (drop / drops) for drop in range(1, drops + 1)]
    how, alive = alive_after(sizes, densities, scope, seed)
    assert all((later <= earlier).all() for earlier, later in pairwise(alive))
    for step, mask in enumerate(alive):
        drop = min(step // 2, drops)
        parts = [mask] if scope == "global" else np.split(mask, np.cumsum(sizes)[:-1])
        wanted = densities[drop - 1] if drop else 1.0
        assert [int(part.sum()) for part in parts] == [round(wanted * len(part)) for part in parts]
    assert ((how.dropped == 0).numpy() == alive[-1]).all()


def test_gradients_pass_straight_through_to_the_living_with_that_of_the_penalty() -> None:
    how = Survivors([3], [2 / 3], "global", every=1, penalty=0.25)
    scores = torch.tensor([0.9, 0.2, 0.6])
    how.after_step(scores, 0)
    assert how.alive.tolist() == [True, False, True]
    gradient = how.backward(scores, torch.tensor([1.0, 1.0, -2.0]))
    assert torch.equal(gradient, torch.tensor([1.0 + 0.5 * 0.9, 0.0, -2.0 + 0.5 * 0.6]))


@pytest.fixture(scope="module")
def found() -> list[UnitScores]:
    model = random_network()
    return list(GemMiner(density=0.3).score(matrices(model), evidence(model)))


def test_it_beats_chance_and_its_own_mask_shuffled(found: list[UnitScores]) -> None:
    model, masks = random_network(), masks_of(found)
    assert accuracy_under(model, masks) > 0.6
    assert accuracy_under(model, shuffled(masks)) == pytest.approx(CHANCE, abs=0.08)


def test_the_ticket_has_exactly_its_density_and_ranks_by_drop_and_p(found: list[UnitScores]) -> None:
    kept, total = kept_units(found), sum(entry.group.num_units for entry in found)
    assert kept.sum() == round(0.3 * total)
    drops = np.concatenate([entry.columns["dropped"] for entry in found])
    chances = np.concatenate([entry.columns["probability"] for entry in found])
    assert ((drops == 0) == (kept == 1)).all()
    assert 0.0 <= chances.min() <= chances.max() <= 1.0
    densities = GemMiner(density=0.3).drop_densities()
    assert drops.max() == len(densities)
    key = np.where(drops == 0, len(densities) + 1, drops) + chances
    ranks = np.argsort(-np.concatenate([entry.score for entry in found]), kind="stable")
    assert (np.diff(key[ranks]) <= 1e-6).all()
    for drop in (3, len(densities) - 1):
        cut = Density(densities[drop - 1]).select(found, [entry.changed for entry in found])
        units = np.concatenate([np.isin(np.arange(e.group.num_units), one) for e, one in zip(found, cut, strict=True)])
        assert (units == ((drops == 0) | (drops > drop))).all()


def test_what_the_penalty_killed_beyond_the_density_is_restored() -> None:
    model = random_network()
    entries = list(GemMiner(density=0.5, penalty=0.1, steps=60).score(matrices(model), evidence(model)))
    kept = kept_units(entries).astype(bool)
    chances = np.concatenate([entry.columns["probability"] for entry in entries])
    assert kept.sum() == round(0.5 * len(kept))
    assert (chances[kept] <= 0.5).sum() > 0
    scores = kept_units(entries, scores=True)
    alive, restored = kept & (chances > 0.5), kept & (chances <= 0.5)
    assert scores[restored].min() > scores[~kept].max()
    assert not alive.any() or scores[alive].min() > scores[restored].max()


def test_it_finds_the_neurons_of_a_known_update() -> None:
    case = planted_update(seed=0, units="neurons", density=0.3)
    entries = list(GemMiner("update", density=0.3, penalty=1e-6, steps=100).score(case.groups, case.evidence))
    assert kept_units(entries).sum() == round(0.3 * len(case.truth))
    assert precision(entries, case) >= 0.8


def test_a_gradient_that_is_no_number_is_reported() -> None:
    """sqrt(0) has an infinite derivative, and 0 * infinity is NaN."""
    model = random_network()
    batches = evidence(model).batches
    broken = Frozen(model, batches, loss=lambda network, batch: (0 * network(batch["x"]).logits).sqrt().sum())
    with pytest.raises(UnitError, match="After step 0 the score of unit 0 is NaN or infinite"):
        list(GemMiner(steps=4, every=1).score(matrices(model), broken))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 0.0}, "density=0.0: must lie between 0 and 1"),
        ({"kind": "both"}, "kind='both'"),
        ({"scope": "layer"}, "scope='layer'"),
        ({"steps": 0}, "steps=0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"penalty": -1.0}, "penalty=-1.0: must be a number of 0 or more"),
        ({"every": 0}, "every=0 of steps=400: must be at least 1, and below"),
        ({"every": 400}, "every=400 of steps=400"),
        ({"steps": 1}, "every=1 of steps=1"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        GemMiner(**options)  # type: ignore[arg-type]


def test_a_density_of_no_unit_is_refused() -> None:
    model = random_network()
    with pytest.raises(OptionError, match="density=1e-06 of 5376 units keeps 0"):
        list(GemMiner(density=1e-6).score(matrices(model), evidence(model)))
