"""The toy task of the iterative methods: a product rule and a perceptron, trained by a stock Trainer."""

from pathlib import Path

import pytest
import torch

from ks_lottery.finders.rounds.runs import Runs
from ks_lottery.training.runs import trainer_runs
from tests.training.perceptron import Perceptron, accuracy, arguments, examples, perceptron, products

TEST = products(1000, 1)


def product_runs(folder: Path, parts=1, seed: int = 0, **options) -> Runs:
    data = examples(*products(3000, 0))
    if parts == "halves":  # split on the sign of an input that the label does not use
        parts = [[one for one in data if (one["x"][9] > 0) == side] for side in (True, False)]
    elif parts == "same":
        parts = [data, data]
    return trainer_runs(folder, lambda: perceptron(seed), data, lambda place: arguments(place, **options), parts=parts)


def scored(checkpoint) -> float:
    """Accuracy of a checkpoint on test examples."""
    model: Perceptron = perceptron()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(checkpoint.rows(name))
    return accuracy(model, *TEST)


@pytest.fixture
def fast(tmp_path: Path) -> Runs:
    """Trainings of a moment, for what does not depend on learning anything."""
    return product_runs(tmp_path, max_steps=4)
