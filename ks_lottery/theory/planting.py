"""Planting: a small target network is written into a large random one, and where it lies is known."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ks_lottery.errors import UnitError
from ks_lottery.theory.relu_network import ReluNetwork


@dataclass(frozen=True)
class Planted:
    """A random network with a target hidden in it.

    Attributes:
        host: the random network; what is planted is overwritten in it, everything else is random.
        target: what was planted.
        weights: per layer, [outputs, inputs] bool; True where the target lies.
        biases: per layer, [outputs] bool.
    """

    host: ReluNetwork
    target: ReluNetwork
    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]

    @property
    def count(self) -> int:
        """Number of planted parameters."""
        return sum(int(mask.sum()) for mask in (*self.weights, *self.biases))

    @property
    def density(self) -> float:
        """Planted parameters over all parameters of the host, biases included."""
        return self.count / self.host.num_parameters

    def ticket_network(self) -> ReluNetwork:
        """The host with zeros wherever nothing is planted: it computes what the target computes."""
        return self.host.masked(self.weights, self.biases)


def plant(target: ReluNetwork, mother: ReluNetwork) -> Planted:
    """Write a target into a random network of the same depth, where it changes as little as possible.

    Layer by layer, each target neuron takes the mother neuron that resembles it most, up to a positive factor, which
    ReLU lets through: the neuron's non-zero parameters theta are divided by that factor, so that they have the size of
    what they overwrite, and the next layer's are multiplied by it. Outputs keep their places and get the size that
    the last layer's weights have; their factors become the scale of the host.

    Args:
        target: a small network; parameters that are exactly 0 are not planted.
        mother: a random network; it stays as it is.

    Returns:
        the host and where the target lies.

    Raises:
        UnitError: if the depths, inputs or outputs differ, or a layer of the target is wider than the mother's.

    Cost:
        Per layer, target neurons times mother neurons times the connections of one neuron.

    Source:
        Fischer & Burkholz 2022, arXiv 2111.11153, algorithm 1: lambda(m) = theta m / |m|^2 minimises
        q = |theta - lambda(m) m|_2. Of neurons that are equally near, as all are to a theta of one number, the one with
        the smallest lambda is taken, which keeps the scale of the outputs small. Where no free mother neuron has a
        positive lambda, |theta| / |m| of the first one takes its place.
    """
    _require_room(target, mother)
    weights = [values.copy() for values in mother.weights]
    biases = [values.copy() for values in mother.biases]
    weight_masks = [np.zeros(values.shape, dtype=bool) for values in weights]
    bias_masks = [np.zeros(values.shape, dtype=bool) for values in biases]
    places, factors = np.arange(target.widths[0]), np.ones(target.widths[0])
    for layer in range(target.depth):
        last = layer == target.depth - 1
        free = list(range(len(biases[layer])))
        found = []
        for neuron, (row, bias) in enumerate(zip(target.weights[layer], target.biases[layer], strict=True)):
            used = np.flatnonzero(row)
            theta = np.append(row[used] * factors[used], [bias] if bias else [])
            known = np.concatenate(
                [mother.weights[layer][free][:, places[used]], mother.biases[layer][free, None]], axis=1
            )[:, : len(theta)]  # without a bias that the target does not have
            place, factor = (neuron, _usual(theta, mother.weights[layer])) if last else _match(theta, known, free)
            weights[layer][place, places[used]] = theta[: len(used)] / factor
            weight_masks[layer][place, places[used]] = True
            if bias:
                biases[layer][place] = theta[-1] / factor
                bias_masks[layer][place] = True
            free.remove(place)
            found.append((place, factor))
        places = np.array([place for place, _ in found])
        factors = np.array([factor for _, factor in found])
    scale = mother.scale.copy()
    scale[places] = factors * target.scale
    host = ReluNetwork(tuple(weights), tuple(biases), scale)
    return Planted(host, target, tuple(weight_masks), tuple(bias_masks))


def parameters(planted: Planted) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(name, values of the host, mask) of every parameter, named as `layers.0.weight` and `layers.0.bias`."""
    for number in range(planted.host.depth):
        yield f"layers.{number}.weight", planted.host.weights[number], planted.weights[number]
        yield f"layers.{number}.bias", planted.host.biases[number], planted.biases[number]


def _match(theta: np.ndarray, known: np.ndarray, free: list[int]) -> tuple[int, float]:
    """The free neuron whose parameters, a row of `known`, are nearest to theta up to a positive factor; the factor."""
    if not len(theta):
        return free[0], 1.0
    sizes = np.square(known).sum(axis=1)
    factors = known @ theta / sizes
    distances = np.linalg.norm(theta - factors[:, None] * known, axis=1)
    distances[~(factors > 0.0)] = np.inf
    nearest = distances.min()
    if np.isinf(nearest):
        return free[0], float(np.linalg.norm(theta) / np.sqrt(sizes[0]))
    equal = np.flatnonzero(distances <= nearest + 1e-9 * np.linalg.norm(theta))
    best = int(equal[np.argmin(factors[equal])])
    return free[best], float(factors[best])


def _usual(theta: np.ndarray, weights: np.ndarray) -> float:
    """The factor that gives theta the size of a layer's weights; 1 for nothing."""
    size = float(np.sqrt(np.square(theta).mean())) if len(theta) else 0.0
    return size / float(np.sqrt(np.square(weights).mean())) if size else 1.0


def _require_room(target: ReluNetwork, mother: ReluNetwork) -> None:
    same = target.depth == mother.depth and all(target.widths[end] == mother.widths[end] for end in (0, -1))
    if not same:
        raise UnitError(
            f"A target of widths {list(target.widths)} cannot be planted in a mother network of widths "
            f"{list(mother.widths)}: layers, inputs and outputs must be as many."
        )
    for layer, (mine, theirs) in enumerate(zip(target.widths, mother.widths, strict=True)):
        if mine > theirs:
            raise UnitError(
                f"Layer {layer} of the target has {mine} neurons, but the mother network's has {theirs}: the target is "
                f"wider than the network that is to hold it. Make the mother at least {mine} wide."
            )
