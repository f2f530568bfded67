"""Strong tickets of ReLU networks: masks of a wider and twice as deep random network that compute a given one.

Each layer W of the target becomes two layers of the source, and each input j has units of its own between them, whose
other first weights are masked. A unit with first weight u > 0 hands on u * x of a positive input and nothing of a
negative one, and u < 0 the other way round. So W[i, j] is met twice, as a sum of products v[i, k] * u[k] over units k
of j with positive and with negative u.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ks_lottery.errors import OptionError
from ks_lottery.theory.constructions import Malach, Orseau, Pensia
from ks_lottery.theory.widths import network_widths


@dataclass(frozen=True)
class StrongLayer:
    """A layer of the target, and the two layers of the source that stand for it.

    Attributes:
        target: [outputs, inputs] float64.
        first: [width, inputs] float64, random.
        second: [outputs, width] float64, random.
        first_mask: [width, inputs] bool; at most one weight of each unit.
        second_mask: [outputs, width] bool.
    """

    target: np.ndarray
    first: np.ndarray
    second: np.ndarray
    first_mask: np.ndarray
    second_mask: np.ndarray

    def products(self) -> tuple[np.ndarray, np.ndarray]:
        """The matrices [outputs, inputs] that the ticket multiplies positive and negative inputs with."""
        first, second = self.first * self.first_mask, self.second * self.second_mask
        return second @ np.maximum(first, 0.0), second @ np.minimum(first, 0.0)

    def outputs(self, inputs: np.ndarray) -> np.ndarray:
        """[..., outputs]: the forward pass of the masked source, which knows nothing of the target."""
        first, second = self.first * self.first_mask, self.second * self.second_mask
        return np.maximum(inputs @ first.T, 0.0) @ second.T


@dataclass(frozen=True)
class StrongTicket:
    """A random ReLU network with the masks under which it computes another one.

    Attributes:
        layers: of the target, each with its two layers of the source.
    """

    layers: tuple[StrongLayer, ...]

    @property
    def entry_error(self) -> float:
        """Largest difference between a weight of the target and either of its sums of products."""
        return max(float(np.abs(product - layer.target).max()) for layer in self.layers for product in layer.products())

    @property
    def density(self) -> float:
        """Share of the source's weights that the masks keep."""
        masks = [mask for layer in self.layers for mask in (layer.first_mask, layer.second_mask)]
        return sum(int(mask.sum()) for mask in masks) / sum(mask.size for mask in masks)

    def outputs(self, inputs: np.ndarray) -> np.ndarray:
        """[..., outputs of the last layer]: the forward pass of the masked source, ReLU between all layers."""
        for layer in self.layers[:-1]:
            inputs = np.maximum(layer.outputs(inputs), 0.0)
        return self.layers[-1].outputs(inputs)

    def sampled_error(self, samples: int = 1000, seed: int = 0) -> float:
        """Largest Euclidean distance from the target's output over random inputs of norm 1."""
        inputs = np.random.default_rng(seed).normal(size=(samples, self.layers[0].target.shape[1]))
        inputs /= np.linalg.norm(inputs, axis=1, keepdims=True)
        wanted = network_outputs([layer.target for layer in self.layers], inputs)
        return float(np.linalg.norm(self.outputs(inputs) - wanted, axis=1).max())

    def error_bound(self) -> float:
        """What `sampled_error` cannot exceed: the errors of single weights, carried through the norms of the layers."""
        size, error = 1.0, 0.0
        for layer in self.layers:
            norm = float(np.linalg.norm(layer.target, 2))
            entries = max(float(np.abs(product - layer.target).max()) for product in layer.products())
            error = norm * error + entries * layer.target.size**0.5 * (size + error)
            size *= norm
        return error


def network_outputs(weights: Sequence[np.ndarray], inputs: np.ndarray) -> np.ndarray:
    """[..., outputs]: a network of linear layers without biases, ReLU between them, on inputs [..., inputs]."""
    for weight in weights[:-1]:
        inputs = np.maximum(inputs @ weight.T, 0.0)
    return inputs @ weights[-1].T


def strong_ticket(
    target: Sequence[np.ndarray],
    construction: Malach | Orseau | Pensia,
    widths: Sequence[int],
    seed: int,
    source_density: float = 1.0,
) -> StrongTicket:
    """Draw a random source from a seed and find in it the ticket that computes a target.

    Args:
        target: matrices [outputs, inputs] of a ReLU network without biases, weights in [-1, 1].
        construction: how weights are drawn and products chosen.
        widths: of the random layer before each layer of the target; each input gets width // inputs units.
        seed: of the source.
        source_density: below 1, each weight of the source is there with this probability only (an Erdos-Renyi source).

    Returns:
        The ticket; its errors are measured from it.

    Raises:
        OptionError: if the matrices do not follow on each other, have a weight that is not finite or outside [-1, 1],
            or the target is wider than the source.

    Cost:
        Weights of the target times width // inputs numbers in memory; two solved subset sums per weight for `Pensia`.

    Source:
        Malach et al. 2020, Orseau et al. 2020, Pensia et al. 2020; the layout after Lemma 7 of Otsuka et al. 2025,
        arXiv 2511.04217. Sources with random masks: Gadhikar et al. 2023, arXiv 2210.02412.
    """
    target = [np.asarray(weight, np.float64) for weight in target]
    _check(target, construction, widths, source_density)
    generator = np.random.default_rng(seed)
    return StrongTicket(
        tuple(
            _strong_layer(weight, construction, width, generator, source_density)
            for weight, width in zip(target, widths, strict=True)
        )
    )


def _strong_layer(
    target: np.ndarray,
    construction: Malach | Orseau | Pensia,
    width: int,
    generator: np.random.Generator,
    source_density: float,
) -> StrongLayer:
    outputs, inputs = target.shape
    first = construction.draw(generator, (width, inputs), 0)
    second = construction.draw(generator, (outputs, width), 1)
    if source_density < 1.0:
        first *= generator.random(first.shape) < source_density
        second *= generator.random(second.shape) < source_density
    units = width // inputs
    used = units * inputs
    own = first[:used].reshape(inputs, units, inputs)[np.arange(inputs), :, np.arange(inputs)]
    items = second[:, :used].reshape(outputs, inputs, units) * own
    chosen = np.zeros(items.shape, bool)
    for half in (own > 0, own < 0):
        chosen |= _chosen(construction, np.where(half, items, 0.0), target)
    second_mask = np.zeros(second.shape, bool)
    second_mask[:, :used] = chosen.reshape(outputs, used)
    first_mask = np.zeros(first.shape, bool)
    first_mask[np.arange(used), np.repeat(np.arange(inputs), units)] = second_mask[:, :used].any(axis=0)
    return StrongLayer(target, first, second, first_mask, second_mask)


def _chosen(construction: Malach | Orseau | Pensia, items: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Which items stand for the targets, where zeros are items that are not there.

    The construction sees the items that are there first, and no more of them than it can take.
    """
    there = items != 0.0
    count = max(1, int(there.sum(axis=-1).max(initial=0)))
    count = count if construction.most is None else min(count, construction.most)
    order = np.argsort(~there, axis=-1, kind="stable")[..., :count]
    mask = np.zeros(items.shape, bool)
    np.put_along_axis(mask, order, construction.choose(np.take_along_axis(items, order, axis=-1), targets), axis=-1)
    return mask & there


def _check(
    target: Sequence[np.ndarray],
    construction: Malach | Orseau | Pensia,
    widths: Sequence[int],
    source_density: float,
) -> None:
    shapes = [weight.shape for weight in target]
    if not target or any(len(shape) != 2 or 0 in shape for shape in shapes):
        raise OptionError(f"The target's matrices have shapes {shapes}. Give one or more matrices [outputs, inputs].")
    if any(after[1] != before[0] for before, after in pairwise(shapes)):
        raise OptionError(f"The target's matrices have shapes {shapes}: inputs of one are not the outputs before it.")
    largest = [float(np.abs(weight).max()) for weight in target]
    if not all(size <= 1.0 for size in largest):
        raise OptionError(
            f"The largest weights of the target's layers are {largest}; constructions hold for finite weights in "
            "[-1, 1]. Scale the layers, and the output back."
        )
    if not 0.0 < source_density <= 1.0:
        raise OptionError(f"source_density={source_density!r} must lie above 0 and not above 1.")
    if len(widths) != len(target):
        raise OptionError(f"{len(widths)} widths for {len(target)} layers of the target. Give one for each layer.")
    narrow = [number for number, width in enumerate(widths) if width < 2 * shapes[number][1]]
    if narrow:
        number = narrow[0]
        sizes = [(rows, columns) for rows, columns in shapes]
        enough = network_widths(construction.name, sizes, 0.1, 0.1, min(1.0, max(*largest, 1e-9)))
        raise OptionError(
            f"The target is wider than the source: layer {number} has {shapes[number][1]} inputs, and the random layer "
            f"before it {widths[number]} units. Each input needs at least two, one per sign. For an error of 0.1 with "
            f"probability 0.9, {construction.name} wants widths {enough}, if the layers have spectral norms up to 1."
        )
