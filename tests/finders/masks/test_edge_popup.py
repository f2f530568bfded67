"""Edge-popup against what its paper and small runs show."""

import numpy as np
import pytest
import torch
from toy_tasks import Perceptron, matrices

from ks_lottery.errors import OptionError
from ks_lottery.finders.base import UnitScores
from ks_lottery.finders.masks.edge_popup import EdgePopup
from tests.finders.masks.corners import CHANCE, accuracy_under, evidence, masks_of, random_network, shuffled
from tests.finders.masks.models import kept_units
from tests.finders.masks.planted_update import planted_update, precision


def search(model: Perceptron, density: float) -> list[UnitScores]:
    paper = EdgePopup(density=density, optimizer="sgd", learning_rate=0.1, weight_decay=5e-4, steps=200)
    return list(paper.score(matrices(model), evidence(model)))


@pytest.fixture(scope="module")
def found() -> dict[float, list[UnitScores]]:
    return {density: search(random_network(), density) for density in (0.9, 0.5, 0.02)}


def test_accuracy_over_density_is_an_inverted_u(found: dict[float, list[UnitScores]]) -> None:
    model = random_network()
    accuracies = {density: accuracy_under(model, masks_of(entries)) for density, entries in found.items()}
    assert accuracies[0.5] > accuracies[0.9] + 0.03
    assert accuracies[0.5] > accuracies[0.02] + 0.2
    assert accuracies[0.5] > 0.5


def test_a_shuffled_mask_and_permuted_weights_fall_to_chance(found: dict[float, list[UnitScores]]) -> None:
    generator, model = np.random.default_rng(0), random_network()
    masks = masks_of(found[0.5])
    assert accuracy_under(model, shuffled(masks)) == pytest.approx(CHANCE, abs=0.08)
    with torch.no_grad():
        for group in matrices(model):
            weight = model.get_parameter(group.name)
            weight.copy_(weight.flatten()[torch.from_numpy(generator.permutation(weight.numel()))].view_as(weight))
    assert accuracy_under(model, masks) == pytest.approx(CHANCE, abs=0.08)


def test_every_layer_keeps_exactly_its_share_and_no_weight_moves(found: dict[float, list[UnitScores]]) -> None:
    for density, entries in found.items():
        counts, sizes = [int(mask.sum()) for mask in masks_of(entries)], [entry.group.num_units for entry in entries]
        assert sum(counts) == round(density * sum(sizes))
        assert all(abs(count - density * size) < 1 for count, size in zip(counts, sizes, strict=True))
    model, fresh = random_network(), random_network()
    search(model, 0.5)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), fresh.parameters(), strict=True))


def test_one_threshold_for_all_layers_keeps_exactly_the_share_of_all() -> None:
    model = random_network()
    entries = list(EdgePopup(density=0.3, scope="global", steps=20).score(matrices(model), evidence(model)))
    counts = [int(mask.sum()) for mask in masks_of(entries)]
    assert sum(counts) == round(0.3 * sum(entry.group.num_units for entry in entries))
    assert counts != [round(0.3 * entry.group.num_units) for entry in entries]


def test_another_seed_begins_elsewhere() -> None:
    one, other = (
        list(EdgePopup(steps=2, seed=seed).score(matrices(random_network()), evidence(random_network())))
        for seed in (0, 1)
    )
    assert not np.array_equal(kept_units(one), kept_units(other))


def test_it_finds_the_neurons_of_a_known_update() -> None:
    """A teacher moved 30 % of the neurons' columns; every other column of `after` moved for nothing."""
    case = planted_update(seed=0, units="neurons", density=0.3)
    entries = list(EdgePopup("update", density=0.3, steps=300).score(case.groups, case.evidence))
    assert precision(entries, case) >= 0.8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 0.0}, "density=0.0: must lie between 0 and 1"),
        ({"density": 1.0}, "density=1.0: must lie between 0 and 1: a mask of nothing, or of everything"),
        ({"kind": "both"}, "kind='both': must be weight or update"),
        ({"scope": "layer"}, "scope='layer': must be global or group"),
        ({"steps": 0}, "steps=0"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        EdgePopup(**options)  # type: ignore[arg-type]
