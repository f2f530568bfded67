"""Targets that are small enough to plant, and their data: a ramp, concentric circles, a helix."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ks_lottery.errors import OptionError
from ks_lottery.theory.relu_network import ReluNetwork

_RADII = (0.2, 0.5, 0.7)  # squared
_SQUARE_KNOTS, _HELIX_KNOTS = 10, 30
_FLIPPED, _NOISE = 0.01, 0.01
_SHALLOWEST = 3
_STEEPNESS = 10.0  # of the logits of the circles, per unit of squared radius


@dataclass(frozen=True)
class Target:
    """A task whose answer is a small network.

    Attributes:
        inputs: number of inputs, each in [-1, 1].
        outputs: number of outputs.
        classes: whether the outputs are logits, and the labels classes.
        network: makes the answer at a depth.
        truth: [examples, inputs] to labels without noise: [examples, outputs] float64, or [examples] int64 classes.
    """

    inputs: int
    outputs: int
    classes: bool
    network: Callable[[int], ReluNetwork]
    truth: Callable[[np.ndarray], np.ndarray]

    def data(self, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw noisy examples.

        Args:
            count: how many.
            generator: of inputs and noise.

        Returns:
            inputs [count, inputs] uniform in [-1, 1]; and labels, with Gaussian noise of standard deviation .01, or of
            classes 1 % moved on to the next.

        Raises:
            OptionError: if the count is below 1.
        """
        if count < 1:
            raise OptionError(f"data(count={count}): draw at least 1 example.")
        x = generator.uniform(-1.0, 1.0, (count, self.inputs))
        labels = self.truth(x)
        if self.classes:
            return x, np.where(generator.random(count) < _FLIPPED, (labels + 1) % self.outputs, labels)
        return x, labels + _NOISE * generator.standard_normal(labels.shape)


def ramp_network(depth: int) -> ReluNetwork:
    """f(x) = max(0, x): one neuron per layer, no biases.

    Raises:
        OptionError: if the depth is below 3.
    """
    _require_depth(depth)
    return _network([(np.ones((1, 1)), np.zeros(1))] * depth)


def helix_network(depth: int) -> ReluNetwork:
    """f(x) = (t cos t, t sin t, t) / 8 pi with t = 5 pi + 3 pi x, linear between 30 knots.

    The first layer has one neuron per knot, the second adds them up, and the others pass the three numbers on, moved
    up so that ReLU leaves them alone, and moved back at the end.

    Raises:
        OptionError: if the depth is below 3.
    """
    _require_depth(depth)
    knots = np.linspace(-1.0, 1.0, _HELIX_KNOTS)
    values = _helix(knots[:, None])
    first = np.ones((len(knots) - 1, 1)), -knots[:-1]
    lowest = values.min(axis=0)
    second = _slope_changes(knots, values), values[0] - lowest
    passed = [(np.eye(3), np.zeros(3))] * (depth - _SHALLOWEST)
    return _network([first, second, *passed, (np.eye(3), lowest)])


def circle_network(depth: int) -> ReluNetwork:
    """Logits of four classes by |x|^2 with borders .2, .5 and .7.

    The first layer folds the plane onto one quadrant (|x_1|, |x_2|), each further one halves the angle that is left,
    by a mirror through its middle; then 10 knots per coordinate make squares, whose sum the logits are linear in. A
    logit overtakes the one before it at their border.

    Raises:
        OptionError: if the depth is below 3.
    """
    _require_depth(depth)
    layers = [(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), np.zeros(4))]
    folded = np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])  # from a layer's neurons to coordinates
    reach = (1.0, 1.0)
    for number in range(1, depth - 2):
        angle = math.pi / 2 ** (number + 1)  # of the mirror, in the middle of what is left
        along, across = (math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))
        layers.append((np.array([along, across, [-value for value in across]]) @ folded, np.zeros(3)))
        folded = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
        reach = math.sqrt(2.0), math.sqrt(2.0) * math.sin(angle)
    rows, starts, heights = [], [], []
    for coordinate, top in zip(folded, reach, strict=True):
        knots = np.linspace(0.0, top, _SQUARE_KNOTS)
        rows.append(np.tile(coordinate, (len(knots) - 1, 1)))
        starts.append(-knots[:-1])
        heights.append(_slope_changes(knots, np.square(knots)[:, None])[0])
    layers.append((np.concatenate(rows), np.concatenate(starts)))
    slopes = _STEEPNESS * np.arange(1 + len(_RADII))
    offsets = -_STEEPNESS * np.concatenate([[0.0], np.cumsum(_RADII)])
    layers.append((slopes[:, None] * np.concatenate(heights), offsets))
    return _network(layers)


def _ramp(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0.0)


def _helix(x: np.ndarray) -> np.ndarray:
    t = 5.0 * math.pi + 3.0 * math.pi * x[:, 0]
    return np.stack([t * np.cos(t), t * np.sin(t), t], axis=1) / (8.0 * math.pi)


def _circle(x: np.ndarray) -> np.ndarray:
    return np.searchsorted(_RADII, np.square(x).sum(axis=1), side="right").astype(np.int64)


TARGETS = {
    "relu": Target(1, 1, False, ramp_network, _ramp),
    "circle": Target(2, 4, True, circle_network, _circle),
    "helix": Target(1, 3, False, helix_network, _helix),
}
"""The tasks of Fischer & Burkholz 2022, arXiv 2111.11153, section 4 and appendix A, by name."""


def _slope_changes(knots: np.ndarray, values: np.ndarray) -> np.ndarray:
    """[outputs, knots - 1], by how much the slope changes at each knot but the last; 0 where it does not."""
    slopes = np.diff(values, axis=0) / np.diff(knots)[:, None]
    changes = np.concatenate([slopes[:1], np.diff(slopes, axis=0)])
    return np.where(np.abs(changes) < 1e-9, 0.0, changes).T


def _network(layers: list[tuple[np.ndarray, np.ndarray]]) -> ReluNetwork:
    weights = tuple(np.where(np.abs(weight) < 1e-12, 0.0, weight) for weight, _ in layers)
    return ReluNetwork(weights, tuple(bias + 0.0 for _, bias in layers), np.ones(len(layers[-1][1])))


def _require_depth(depth: int) -> None:
    if depth < _SHALLOWEST:
        raise OptionError(
            f"depth={depth}: a target takes at least {_SHALLOWEST} layers: one that cuts the inputs, one that puts "
            "the pieces together, and the output."
        )
