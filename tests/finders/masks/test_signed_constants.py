"""Weights of one size and two signs."""

import pytest
import torch
from toy_tasks import matrices, perceptron

from ks_lottery.errors import OptionError
from ks_lottery.finders.masks.signed_constants import signed_constants


def test_signs_stay_and_sizes_are_those_of_the_inputs() -> None:
    model, before = perceptron(0, (8, 50, 4)), perceptron(0, (8, 50, 4))
    signed_constants(model, matrices(model), density=0.5)
    for layer, old, inputs in zip(model.layers, before.layers, (8, 50), strict=True):
        assert torch.equal(layer.weight.sign(), old.weight.sign())
        torch.testing.assert_close(layer.weight.abs(), torch.full_like(layer.weight, (4 / inputs) ** 0.5))
        assert torch.equal(layer.bias, old.bias)


@pytest.mark.parametrize("density", [0.0, 1.5])
def test_densities_that_are_none_are_refused(density: float) -> None:
    with pytest.raises(OptionError, match=rf"signed_constants\(density={density}\): must be above 0 and at most 1"):
        signed_constants(perceptron(), matrices(perceptron()), density)
