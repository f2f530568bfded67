"""Bernoulli supermasks: the masks, the gradient, and small runs."""

import numpy as np
import pytest
import torch
from scipy import stats
from toy_tasks import matrices

from ks_lottery.errors import OptionError
from ks_lottery.finders.base import UnitScores
from ks_lottery.finders.masks.counted_draws import CountedDraws
from ks_lottery.finders.masks.supermask import Bernoulli, Supermask
from tests.finders.masks.corners import CHANCE, accuracy_under, evidence, masks_of, random_network, shuffled
from tests.finders.masks.models import kept_units
from tests.finders.masks.planted_update import planted_update, precision


class TestBernoulli:
    def test_every_unit_is_drawn_with_its_probability(self) -> None:
        logits = torch.tensor([-40.0, -1.0, 0.0, 2.0, 40.0])
        how, counts = Bernoulli([5], CountedDraws(5, 0)), torch.zeros(5)
        for step in range(1500):
            counts += how.mask(logits)
            how.after_step(logits, step)
        assert (counts[0], counts[4]) == (0, 1500)
        for unit in (1, 2, 3):
            chance = float(logits[unit].sigmoid())
            assert stats.binomtest(int(counts[unit]), 1500, chance).pvalue > 1e-3

    def test_the_gradient_of_the_mask_is_taken_for_that_of_the_probability(self) -> None:
        logits = torch.tensor([0.0, 1.0, -3.0])
        how = Bernoulli([3], CountedDraws(3, 0))
        how.mask(logits)
        gradient = how.backward(logits, torch.tensor([1.0, -2.0, 4.0]))
        expected = torch.tensor([1.0, -2.0, 4.0]) * logits.sigmoid() * (1 - logits.sigmoid())
        torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=0)

    def test_a_rescaled_mask_sums_to_the_units_of_each_group(self) -> None:
        logits = torch.zeros(150)
        logits[100:] = -40.0
        how = Bernoulli([100, 50], CountedDraws(150, 0), rescale=True)
        mask = how.mask(logits)
        ones = int((mask > 0).sum())
        assert 0 < ones < 100
        assert float(mask[:100].sum()) == pytest.approx(100)
        assert not mask[100:].any()
        gradient = how.backward(logits, torch.ones(150))
        torch.testing.assert_close(gradient[:100], torch.full((100,), 0.25 * 100 / ones))
        assert float(gradient[100:].max()) < 1e-15


@pytest.fixture(scope="module")
def found() -> list[UnitScores]:
    model = random_network()
    return list(Supermask(density=0.3).score(matrices(model), evidence(model)))


def test_it_beats_chance_and_its_own_mask_shuffled(found: list[UnitScores]) -> None:
    model, masks = random_network(), masks_of(found)
    assert accuracy_under(model, masks) > 0.6
    assert accuracy_under(model, shuffled(masks)) == pytest.approx(CHANCE, abs=0.08)


def test_the_cut_is_exact_and_by_the_logit(found: list[UnitScores]) -> None:
    kept = kept_units(found).astype(bool)
    logits = np.concatenate([entry.columns["score"] for entry in found])
    chances = np.concatenate([entry.columns["probability"] for entry in found])
    assert kept.sum() == round(0.3 * len(kept))
    assert logits[kept].min() >= logits[~kept].max()
    np.testing.assert_allclose(chances, 1 / (1 + np.exp(-logits)), rtol=1e-5)
    assert all((entry.columns["multiplier"] == 1).all() for entry in found)


def test_each_group_keeps_its_share_where_asked_to_and_says_its_multiplier() -> None:
    model = random_network()
    options = {"density": 0.3, "scope": "group", "steps": 20, "rescale": True}
    for entry in Supermask(**options).score(matrices(model), evidence(model)):  # type: ignore[arg-type]
        kept = entry.columns["kept"].sum()
        assert kept == round(0.3 * entry.group.num_units)
        np.testing.assert_allclose(entry.columns["multiplier"], entry.group.num_units / kept, rtol=1e-6)


def test_probabilities_begin_at_the_density_and_nothing_holds_them_there() -> None:
    model = random_network()

    def mean(**options: float) -> float:
        entries = Supermask(density=0.2, **options).score(matrices(model), evidence(model))  # type: ignore[arg-type]
        return float(np.concatenate([entry.columns["probability"] for entry in entries]).mean())

    assert mean(steps=1, learning_rate=1e-6) == pytest.approx(0.2, abs=1e-5)
    assert abs(mean(steps=100) - 0.2) > 0.02


def test_the_seed_decides_the_draws() -> None:
    model = random_network()
    one, again, other = (
        list(Supermask(steps=5, seed=seed).score(matrices(model), evidence(model))) for seed in (0, 0, 1)
    )
    assert np.array_equal(kept_units(one, scores=True), kept_units(again, scores=True))
    assert not np.array_equal(kept_units(one), kept_units(other))


def test_it_finds_the_neurons_of_a_known_update() -> None:
    case = planted_update(seed=0, units="neurons", density=0.3)
    entries = list(Supermask("update", density=0.3, steps=60).score(case.groups, case.evidence))
    assert precision(entries, case) >= 0.8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 1.0}, "density=1.0: must lie between 0 and 1"),
        ({"kind": "both"}, "kind='both'"),
        ({"scope": "layer"}, "scope='layer'"),
        ({"steps": 0}, "steps=0"),
        ({"optimizer": "adamw"}, "optimizer='adamw': must be sgd or adam"),
        ({"seed": -1}, "seed=-1: must be 0 or more"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Supermask(**options)  # type: ignore[arg-type]
