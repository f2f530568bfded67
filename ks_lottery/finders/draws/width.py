"""How much wider a random sparse network must be, so that it holds a given one."""

import math

from ks_lottery.errors import OptionError


def candidate_copies(edges: int, density: float, delta: float = 0.05) -> int:
    """Copies that each edge of a target needs in a random source, so that all edges are found.

    A copy is there with probability `density`, so all k copies of an edge are missing with (1 - density) ** k, and any
    edge lacks all of its copies with at most `edges` times that.

    Args:
        edges: weights of the target, at least 1.
        density: of the random source, in (0, 1).
        delta: probability of failure that is allowed, in (0, 1).

    Returns:
        the smallest k with edges * (1 - density) ** k <= delta. A strong ticket, whose weights are sums of random ones,
        needs this many for every member of the sum.

    Raises:
        OptionError: if a number is out of range.

    Source:
        Gadhikar et al. 2023, arXiv 2210.02412: a source of this width holds the target.
    """
    if edges < 1 or not 0.0 < delta < 1.0:
        raise OptionError(f"edges={edges!r}, delta={delta!r}: edges must be at least 1 and delta between 0 and 1.")
    return max(1, math.ceil(math.log(edges / delta) * width_factor(density)))


def width_factor(density: float) -> float:
    """By how much a source of this density has to be wider, up to the logarithm: 1 / log(1 / (1 - density)).

    Raises:
        OptionError: if the density is not in (0, 1).

    Source:
        Gadhikar et al. 2023, arXiv 2210.02412.
    """
    if not 0.0 < density < 1.0:
        raise OptionError(f"density={density!r} must lie between 0 and 1.")
    return -1 / math.log1p(-density)
