"""Edge-popup against what its paper and small runs show."""

import copy

import numpy as np
import pytest
import torch
from toy_tasks import Perceptron, accuracy, matrices, perceptron

from ks_lottery.errors import OptionError
from ks_lottery.finders.base import UnitScores
from ks_lottery.finders.masks.edge_popup import EdgePopup
from ks_lottery.finders.masks.frozen import Frozen
from ks_lottery.finders.masks.signed_constants import signed_constants
from tests.finders.masks.models import kept_units
from tests.finders.masks.planted_update import planted_update, precision

CHANCE = 0.25


def corners(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """X in R^16, four classes: 2 * 1[x0 x1 > 0] + 1[x2 > 0]."""
    x = torch.randn(count, 16, generator=torch.Generator().manual_seed(seed))
    return x, 2 * (x[:, 0] * x[:, 1] > 0).long() + (x[:, 2] > 0).long()


X, LABELS = corners(4096, 0)
BATCHES = [{"x": X[at : at + 256], "labels": LABELS[at : at + 256]} for at in range(0, len(X), 256)]


def random_network() -> Perceptron:
    model = perceptron(0, (16, 64, 64, 4), bias=False)
    signed_constants(model, matrices(model))
    return model.requires_grad_(False)


def accuracy_under(model: Perceptron, masks: list[np.ndarray]) -> float:
    """Accuracy of the network under masks, on fresh examples."""
    ticket = copy.deepcopy(model)
    with torch.no_grad():
        for group, mask in zip(matrices(model), masks, strict=True):
            weight = ticket.get_parameter(group.name)
            weight.mul_(torch.from_numpy(mask).to(weight).view_as(weight))
    return accuracy(ticket, *corners(2048, 1))


def search(model: Perceptron, density: float) -> list[UnitScores]:
    paper = EdgePopup(density=density, optimizer="sgd", learning_rate=0.1, weight_decay=5e-4, steps=200)
    return list(paper.score(matrices(model), Frozen(model, BATCHES)))


def masks_of(entries: list[UnitScores]) -> list[np.ndarray]:
    return [entry.columns["kept"] for entry in entries]


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
    assert accuracy_under(model, [generator.permutation(mask) for mask in masks]) == pytest.approx(CHANCE, abs=0.08)
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
    entries = list(EdgePopup(density=0.3, scope="global", steps=20).score(matrices(model), Frozen(model, BATCHES)))
    counts = [int(mask.sum()) for mask in masks_of(entries)]
    assert sum(counts) == round(0.3 * sum(entry.group.num_units for entry in entries))
    assert counts != [round(0.3 * entry.group.num_units) for entry in entries]


def test_another_seed_begins_elsewhere() -> None:
    one, other = (
        list(EdgePopup(steps=2, seed=seed).score(matrices(random_network()), Frozen(random_network(), BATCHES)))
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
