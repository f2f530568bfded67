"""The four-class task on which papers about masks over random networks can be checked in seconds."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from toy_tasks import Perceptron, accuracy, matrices, perceptron

from ks_lottery.finders.base import UnitScores
from ks_lottery.finders.masks.frozen import Frozen
from ks_lottery.finders.masks.signed_constants import signed_constants

CHANCE = 0.25


def corners(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """X in R^16, four classes: 2 * 1[x0 x1 > 0] + 1[x2 > 0]."""
    x = torch.randn(count, 16, generator=torch.Generator().manual_seed(seed))
    return x, 2 * (x[:, 0] * x[:, 1] > 0).long() + (x[:, 2] > 0).long()


def random_network() -> Perceptron:
    """Three matrices of signed constants."""
    model = perceptron(0, (16, 64, 64, 4), bias=False)
    signed_constants(model, matrices(model))
    return model.requires_grad_(False)


def evidence(model: Perceptron) -> Frozen:
    """Sixteen batches of 256 examples."""
    x, labels = corners(4096, 0)
    return Frozen(model, [{"x": x[at : at + 256], "labels": labels[at : at + 256]} for at in range(0, len(x), 256)])


def accuracy_under(model: Perceptron, masks: Sequence[np.ndarray]) -> float:
    """Accuracy of the network under masks, on fresh examples."""
    ticket = copy.deepcopy(model)
    with torch.no_grad():
        for group, mask in zip(matrices(model), masks, strict=True):
            weight = ticket.get_parameter(group.name)
            weight.mul_(torch.from_numpy(mask).to(weight).view_as(weight))
    return accuracy(ticket, *corners(2048, 1))


def masks_of(entries: Sequence[UnitScores]) -> list[np.ndarray]:
    """The learnt mask of each group."""
    return [entry.columns["kept"] for entry in entries]


def shuffled(masks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """As many of each group, anywhere."""
    generator = np.random.default_rng(0)
    return [generator.permutation(mask) for mask in masks]
