"""How wide a random network has to be for the strong tickets of Malach, Orseau and Pensia: one rule, three counts.

As in `bounds`, the source is random, and nothing here speaks of a pretrained model.
"""

import math
from collections.abc import Sequence
from typing import Literal

from scipy.special import bdtr

from ks_lottery.errors import OptionError
from ks_lottery.theory.bounds import PRODUCTS, subset_sum_items
from ks_lottery.theory.checks import check_counts, check_largest, check_positive, check_shares

Construction = Literal["malach", "orseau", "pensia"]


def malach_items(weights: int, eps: float, delta: float, largest: float = 1.0) -> int:
    """Pairs of random weights of which one by one, without sums, some come within eps of each of many targets.

    Args:
        weights: targets that have to be met, each among pairs of its own.
        eps: error that is allowed in each, in (0, 1).
        delta: probability that any is missed, in (0, 1).
        largest: bound on the size of a target, in (0, 1].

    Returns:
        the smallest n with weights * (1 - p) ** n <= delta, where p is the chance that the product of two U(-1, 1) lies
        within eps of `largest`: about eps ** 2 / 4 for 1, and -eps * log(largest) for less. A theorem without constant.

    Raises:
        OptionError: if a number is out of range.

    Source:
        Malach et al. 2020, arXiv 2002.00585: the argument; the exact chance is ours, theirs is a polynomial bound.
    """
    check_counts(weights=weights)
    check_shares(eps=eps, delta=delta)
    check_largest(largest)

    def below(value: float) -> float:
        size = min(1.0, abs(value))
        return 0.5 + math.copysign(0.5 * (size - size * math.log(size)) if size else 0.0, value)

    return _draws(weights, below(largest + eps) - below(largest - eps), delta)


def orseau_levels(eps: float, largest: float = 1.0) -> int:
    """Steps of a factor 2/3 from `largest` down to eps, at least 1; arguments as in `orseau_items`."""
    check_shares(eps=eps)
    check_largest(largest)
    return max(1, math.ceil(math.log(largest / eps) / math.log(1.5) - 1e-9))


def orseau_items(weights: int, eps: float, delta: float, largest: float = 1.0) -> int:
    """Pairs of random weights, log-uniform, from which the largest that fits is taken until each target is met.

    A rest between (2/3) ** (k + 1) and (2/3) ** k of `largest` falls by a third or more, if there is a product between
    (2/3) ** (k + 2) and (2/3) ** (k + 1) of it. So a target is met if each of K = `orseau_levels` such intervals holds
    a product, and each product lies in a given one with chance 1 / (2 * (K + 2)).

    Args:
        weights: targets that have to be met, each among pairs of its own.
        eps: error that is allowed in each, in (0, 1).
        delta: probability that any is missed, in (0, 1).
        largest: bound on the size of a target, in (0, 1].

    Returns:
        the smallest n with weights * K * (1 - 1 / (2 * (K + 2))) ** n <= delta: K * log(K) for one weight.

    Raises:
        OptionError: if a number is out of range.

    Source:
        Orseau et al. 2020, arXiv 2006.12156: hyperbolic weights, a decomposition in base 3/2, and a logarithmic number
        of neurons. The intervals, the count and the constant are ours: a theorem, but not theirs.
    """
    check_counts(weights=weights)
    check_shares(delta=delta)
    levels = orseau_levels(eps, largest)
    return _draws(weights * levels, 0.5 / (levels + 2), delta)


def same_sign_units(items: int, inputs: int, delta: float) -> int:
    """Units with random signs that each input needs, so that each has `items` of both signs, but for probability delta.

    Returns:
        the smallest n with 2 * inputs * P(Binomial(n, 1/2) < items) <= delta; about 2 * items and a few square roots.

    Raises:
        OptionError: if a number is out of range.
    """
    check_counts(items=items, inputs=inputs)
    check_shares(delta=delta)
    low, high = items, 2 * items
    while 2 * inputs * bdtr(items - 1, high, 0.5) > delta:
        low, high = high, 2 * high
    while low < high:
        middle = (low + high) // 2
        enough = 2 * inputs * bdtr(items - 1, middle, 0.5) <= delta
        low, high = (low, middle) if enough else (middle + 1, high)
    return high


def entry_eps(shapes: Sequence[tuple[int, int]], eps: float) -> float:
    """Error of single weights with which a ReLU network, of spectral norms up to 1, errs by eps on the unit ball.

    Args:
        shapes: of the matrices, (outputs, inputs).
        eps: error of the output in the Euclidean norm, above 0.

    Returns:
        ((1 + eps) ** (1 / depth) - 1) / sqrt(largest number of weights of a layer): an error e in each weight of a
        layer adds at most e * sqrt(outputs * inputs) to its spectral norm.
    """
    check_positive(eps=eps)
    return math.expm1(math.log1p(eps) / len(shapes)) / math.sqrt(max(rows * columns for rows, columns in shapes))


def network_widths(
    construction: Construction,
    shapes: Sequence[tuple[int, int]],
    eps: float,
    delta: float,
    largest: float = 1.0,
    constant: float = PRODUCTS,
) -> tuple[int, ...]:
    """Widths of the random layers put before each layer of a ReLU network, so that a strong ticket is within eps of it.

    Each layer of the target is met twice, for positive and for negative inputs. Half of delta goes to signs, half to
    the 2 * (all weights) targets.

    Args:
        construction: "malach", "orseau" or "pensia".
        shapes: of the target's matrices, (outputs, inputs), each of a spectral norm up to 1.
        eps: error of the output in the Euclidean norm, for inputs of a norm up to 1.
        delta: probability of failure that is allowed, in (0, 1).
        largest: bound on the size of the target's weights, in (0, 1]; "pensia" makes no use of it.
        constant: empirical C of "pensia"; the others have none.

    Returns:
        inputs * units for each layer.

    Raises:
        OptionError: if a number is out of range, or the construction is unknown.

    Source:
        Malach et al. 2020, Orseau et al. 2020, Pensia et al. 2020 (arXiv 2006.07990): width
        C * d * log(weights / min(eps, delta)).
    """
    single, weights = entry_eps(shapes, eps), 2 * sum(rows * columns for rows, columns in shapes)
    check_shares(delta=delta)
    if construction == "malach":
        items = malach_items(weights, single, delta / 2, largest)
    elif construction == "orseau":
        items = orseau_items(weights, single, delta / 2, largest)
    elif construction == "pensia":
        items = subset_sum_items(single, delta / 2 / weights, constant)
    else:
        raise OptionError(f"construction={construction!r} is unknown. Choose malach, orseau or pensia.")
    units = same_sign_units(items, sum(columns for _, columns in shapes), delta / 2)
    return tuple(columns * units for _, columns in shapes)


def _draws(targets: int, chance: float, delta: float) -> int:
    """Smallest n with targets * (1 - chance) ** n <= delta."""
    return max(1, math.ceil(math.log(targets / delta) / -math.log1p(-chance)))
