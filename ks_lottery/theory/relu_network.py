"""Multilayer perceptrons as plain arrays: what is planted, and what it is planted into."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ks_lottery.errors import UnitError


@dataclass(frozen=True)
class ReluNetwork:
    """Linear layers with ReLU between them.

    Attributes:
        weights: per layer, [outputs, inputs] float64.
        biases: per layer, [outputs] float64.
        scale: [outputs of the last layer] float64; what the outputs are multiplied by at the end.

    Raises:
        UnitError: if there is no layer, the shapes do not fit each other, or a value is NaN or infinite.
    """

    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    scale: np.ndarray

    def __post_init__(self) -> None:
        shapes = [weight.shape for weight in self.weights]
        fits = all(len(shape) == 2 for shape in shapes) and [bias.shape for bias in self.biases] == [
            shape[:1] for shape in shapes
        ]
        joined = fits and all(
            shape[0] == following[1] for shape, following in pairwise(shapes)
        )  # fmt: skip
        if not shapes or not joined or self.scale.shape != shapes[-1][:1]:
            raise UnitError(
                f"A network has weights of shapes {shapes}, biases of shapes {[bias.shape for bias in self.biases]} "
                f"and a scale of shape {self.scale.shape}. Each layer needs [outputs, inputs] and [outputs], its "
                "inputs the outputs of the one before, and the scale has one value for each output of the last."
            )
        for number, values in enumerate((*self.weights, *self.biases, self.scale)):
            if not np.isfinite(values).all():
                raise UnitError(
                    f"Array {number} of a network of {len(shapes)} layers (weights, then biases, then the scale) has "
                    "values that are NaN or infinite."
                )

    @property
    def widths(self) -> tuple[int, ...]:
        """Number of inputs, then of outputs of each layer."""
        return (self.weights[0].shape[1], *(len(bias) for bias in self.biases))

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.weights)

    @property
    def num_parameters(self) -> int:
        """Weights and biases together."""
        return sum(values.size for values in (*self.weights, *self.biases))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Outputs [examples, outputs] of inputs [examples, inputs]."""
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = np.maximum(x @ weight.T + bias, 0.0)
        result: np.ndarray = (x @ self.weights[-1].T + self.biases[-1]) * self.scale
        return result

    def masked(self, weights: Sequence[np.ndarray], biases: Sequence[np.ndarray]) -> "ReluNetwork":
        """The same network with zeros where a mask, one of each array's shape, is False."""
        return ReluNetwork(
            tuple(np.where(mask, values, 0.0) for values, mask in zip(self.weights, weights, strict=True)),
            tuple(np.where(mask, values, 0.0) for values, mask in zip(self.biases, biases, strict=True)),
            self.scale,
        )


def mother_network(widths: Sequence[int], generator: np.random.Generator) -> ReluNetwork:
    """A random network in which something may be planted.

    Args:
        widths: number of inputs, then of outputs of each layer.
        generator: of the draws; weights before biases, layer by layer.

    Returns:
        weights of layer l from N(0, 2 / n_(l-1)); its biases with the product of the standard deviations of all
        weights up to l, so that rescaling each layer by its own constant rescales the whole function.

    Raises:
        UnitError: if there is no layer, or a width is below 1.

    Source:
        Fischer & Burkholz 2022, arXiv 2111.11153, section 3 (He scaling, biases scaled by depth).
    """
    if len(widths) < 2 or min(widths) < 1:
        raise UnitError(f"widths={list(widths)}: give inputs and outputs of at least one layer, each at least 1.")
    weights, biases, spread = [], [], 1.0
    for inputs, outputs in pairwise(widths):
        deviation = math.sqrt(2.0 / inputs)
        spread *= deviation
        weights.append(deviation * generator.standard_normal((outputs, inputs)))
        biases.append(spread * generator.standard_normal(outputs))
    return ReluNetwork(tuple(weights), tuple(biases), np.ones(widths[-1]))
