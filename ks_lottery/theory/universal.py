"""Universal tickets: one masked random network whose features serve a whole family, with a readout per task.

A function of one number becomes a sum of hinges, `relu(p * (x - s))`. In a random network of two hidden layers the
first one holds units that hand on x (their bias is masked) and units that are constant (their weight is masked). Slope
and offset of each hinge are two subset sums over them; a weight of the output, of the right sign, carries the hinge on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ks_lottery.errors import OptionError
from ks_lottery.theory.constructions import Pensia
from ks_lottery.theory.strong_ticket import StrongTicket, strong_ticket
from ks_lottery.theory.subset_sum import solve
from ks_lottery.theory.widths import same_sign_units

WEIGHTS, BIASES = 2.0, 1.0
_STEEPEST, _REACH = 6.0, 3.5


class Curve(NamedTuple):
    """A piecewise linear function of x >= 0.

    Attributes:
        knots: [k] float64, increasing, the first one 0; the last piece goes on beyond the last knot.
        values: [k] float64, of the function at the knots.
    """

    knots: np.ndarray
    values: np.ndarray

    def hinges(self) -> tuple[np.ndarray, np.ndarray]:
        """Places and changes of slope, [h] each; a large change is several equal ones."""
        slopes = np.diff(self.values) / np.diff(self.knots)
        changes = np.diff(slopes, prepend=0.0)
        parts = np.ceil(np.abs(changes) / _STEEPEST).astype(int)
        return np.repeat(self.knots[:-1], parts), np.repeat(changes / np.maximum(parts, 1), parts)


@dataclass(frozen=True)
class CurveTicket:
    """A random network 1 -> width -> width -> curves with the masks under which it computes some curves.

    Attributes:
        weights: three matrices, [width, 1], [width, width], [curves, width], U(-2, 2).
        bias: [width] of the first layer, U(-1, 1); the biases of the other layers are masked as a whole.
        masks: three, bool, as the weights.
        bias_mask: [width] bool.
    """

    weights: tuple[np.ndarray, np.ndarray, np.ndarray]
    bias: np.ndarray
    masks: tuple[np.ndarray, np.ndarray, np.ndarray]
    bias_mask: np.ndarray

    @property
    def kept(self) -> int:
        """Number of weights and biases that the masks keep."""
        return sum(int(mask.sum()) for mask in (*self.masks, self.bias_mask))

    @property
    def size(self) -> int:
        """Number of weights and biases of the source, those of all layers."""
        return sum(weight.size + len(weight) for weight in self.weights)

    def features(self, inputs: np.ndarray) -> np.ndarray:
        """[..., curves]: the forward pass of the masked source on [...] inputs of 0 and more."""
        first, second, third = (weight * mask for weight, mask in zip(self.weights, self.masks, strict=True))
        hidden = np.maximum(np.asarray(inputs)[..., None] * first[:, 0] + self.bias * self.bias_mask, 0.0)
        return np.maximum(hidden @ second.T, 0.0) @ third.T


@dataclass(frozen=True)
class MonomialTicket:
    """Monomials of several inputs in [0, 1] as `exp(-sum of k * -log x)`; curves are shared over inputs and monomials.

    Attributes:
        logarithm: computes -log x.
        exponents: computes sums of logarithms, divided by the largest exponent.
        exponential: computes exp(-largest exponent * x).
        powers: [monomials, inputs] int, the exponents k.
    """

    logarithm: CurveTicket
    exponents: StrongTicket
    exponential: CurveTicket
    powers: np.ndarray

    @property
    def density(self) -> float:
        """Share of the weights and biases of all three sources that the masks keep."""
        layer = self.exponents.layers[0]
        kept = self.logarithm.kept + self.exponential.kept + int(layer.first_mask.sum() + layer.second_mask.sum())
        return kept / (self.logarithm.size + self.exponential.size + layer.first.size + layer.second.size)

    def features(self, inputs: np.ndarray) -> np.ndarray:
        """[..., monomials]: the forward passes of the masked sources on [..., inputs]."""
        return self.exponential.features(self.exponents.outputs(self.logarithm.features(inputs)[..., 0]))[..., 0]


def curve_ticket(curves: Sequence[Curve], width: int, seed: int, items: int = 24) -> CurveTicket:
    """Draw a random network from a seed and find in it the ticket that computes some curves.

    Args:
        curves: what the outputs shall be.
        width: of the two hidden layers.
        seed: of the network.
        items: units of the first layer that hand on x, and as many that are constant; at most 30.

    Returns:
        The ticket.

    Raises:
        OptionError: if a curve does not start at 0 or its knots do not increase, or the curves are wider than the
            source: they have more hinges than it has units of the right sign, with large enough sums and weights.

    Cost:
        Two subset sums of `items` items for each hinge: 50 ms for 21 of them.

    Source:
        Burkholz et al. 2022, arXiv 2111.11146: hinges, balanced over two layers, and subset sums of random products;
        the exact solver, and the weight of the output by sign and size, are ours.
    """
    for curve in curves:
        if curve.knots[0] != 0.0 or len(curve.knots) < 2 or not (np.diff(curve.knots) > 0).all():
            raise OptionError(f"A curve has the knots {list(curve.knots)}. Give two or more, increasing from 0.")
    hinges = sum(len(curve.hinges()[0]) + 1 for curve in curves)
    generator = np.random.default_rng(seed)
    shapes = ((width, 1), (width, width), (len(curves), width))
    first, second, third = (generator.uniform(-WEIGHTS, WEIGHTS, shape) for shape in shapes)
    bias = generator.uniform(-BIASES, BIASES, width)
    linear = np.flatnonzero(first[:, 0] > 0)[:items]
    constant = np.setdiff1d(np.flatnonzero(bias > 0), linear)[:items]
    if min(len(linear), len(constant)) < items:
        _refuse(width, items, f"{items} units that hand on x and {items} that are constant", hinges)
    masks = (np.zeros((width, 1), bool), np.zeros((width, width), bool), np.zeros((len(curves), width), bool))
    slope_items, offset_items = second[:, linear] * first[linear, 0], second[:, constant] * bias[constant]
    reach = [np.maximum(sums, 0.0).sum(axis=1) for sums in (slope_items, offset_items, -offset_items)]
    free: np.ndarray = np.stack(reach).min(axis=0) >= _REACH
    for output, curve in enumerate(curves):
        places, changes = curve.hinges()
        offset = curve.values[0]
        rises = np.concatenate([changes, [offset] if offset else []])
        chosen = _units(rises, np.where(free, third[output], 0.0), items, hinges)
        free[chosen] = False
        masks[2][output, chosen] = True
        ends = np.abs(rises / third[output, chosen])
        slopes = np.where(np.arange(len(ends)) < len(changes), ends, 0.0)
        offsets = np.concatenate([-ends[: len(places)] * places, ends[len(places) :]])
        if max(ends.max(initial=0.0), np.abs(offsets).max(initial=0.0)) > _REACH:
            _refuse(width, items, f"{len(rises)} hinges that large weights of the output carry", hinges)
        masks[1][np.ix_(chosen, linear)] = solve(slope_items[chosen], slopes).mask
        masks[1][np.ix_(chosen, constant)] = solve(offset_items[chosen], offsets).mask
    used, bias_mask = np.logical_or.reduce(masks[1], axis=0), np.zeros(width, bool)
    masks[0][linear, 0] = used[linear]
    bias_mask[constant] = used[constant]
    return CurveTicket((first, second, third), bias, masks, bias_mask)


def monomial_ticket(degree: int, inputs: int, seed: int, width: int = 300, knots: int = 31) -> MonomialTicket:
    """The ticket whose features are all monomials up to a degree, so that a linear readout gives every polynomial.

    Args:
        degree: of the polynomials, at least 1.
        inputs: number of variables, each in [0, 1].
        seed: of the random sources.
        width: of the hidden layers of the sources.
        knots: of the logarithm and of the exponential.

    Returns:
        The ticket; the constant is no feature, a readout has it as its bias.

    Raises:
        OptionError: if a number is below 1, or the curves are wider than the source.

    Source:
        Burkholz et al. 2022, arXiv 2111.11146; their inputs are (1 + x) / 2 with x in [-1, 1].
    """
    if min(degree, inputs) < 1:
        raise OptionError(f"degree={degree!r} and inputs={inputs!r} must be at least 1.")
    grid = np.stack(np.meshgrid(*[np.arange(degree + 1)] * inputs, indexing="ij"), axis=-1).reshape(-1, inputs)
    powers = grid[(grid.sum(axis=1) >= 1) & (grid.sum(axis=1) <= degree)]
    lowest = 0.02
    places = np.concatenate([[0.0], np.geomspace(lowest, 1.0, knots - 1)])
    logarithm = Curve(places, np.concatenate([[1.0 - np.log(lowest)], -np.log(places[1:])]))
    longest = logarithm.values[0]
    steps = -2 / degree * np.log1p(-np.linspace(0.0, 1.0, knots) * -np.expm1(-degree * longest / 2))
    exponential = Curve(steps, np.exp(-degree * steps))
    return MonomialTicket(
        curve_ticket([logarithm], width, seed),
        strong_ticket([powers / degree], Pensia(), [inputs * 50], seed + 1),
        curve_ticket([exponential], width, seed + 2),
        powers,
    )


def sine_curve(frequency: float = 1.0, phase: float = 0.0, knots: int = 21) -> Curve:
    """sin(2 * pi * (frequency * x + phase)) for x in [0, 1], at equally spaced knots."""
    places = np.linspace(0.0, 1.0, knots)
    return Curve(places, np.sin(2 * np.pi * (frequency * places + phase)))


def readout_r2(features: np.ndarray, targets: np.ndarray) -> float:
    """Explained share of the variance of [n] targets by the best linear readout, with a bias, of [n, f] features."""
    design = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    rest = targets - design @ np.linalg.lstsq(design, targets, rcond=None)[0]
    return float(1 - rest.var() / targets.var())


def _units(rises: np.ndarray, weights: np.ndarray, items: int, hinges: int) -> np.ndarray:
    """A unit for each rise, whose weight has its sign; the larger the rise, the larger the weight."""
    chosen = np.zeros(len(rises), np.int64)
    for sign in (1.0, -1.0):
        wanted = np.flatnonzero(rises * sign > 0)
        there = np.flatnonzero(weights * sign > 0)
        if len(there) < len(wanted):
            _refuse(len(weights), items, f"{len(wanted)} hinges with weights of one sign", hinges)
        by_size = wanted[np.argsort(-np.abs(rises[wanted]), kind="stable")]
        chosen[by_size] = there[np.argsort(-np.abs(weights[there]), kind="stable")][: len(wanted)]
    return chosen


def _refuse(width: int, items: int, needed: str, hinges: int) -> None:
    enough = max(same_sign_units(3 * items, 1, 0.01), same_sign_units(2 * hinges, 1, 0.01))
    raise OptionError(
        f"The curves are wider than the source: they need {needed}, and the draw of width {width} has fewer. Draw a "
        f"wider one: {enough} has enough of them in 99 of 100 draws."
    )
