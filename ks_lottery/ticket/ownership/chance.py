"""How probable a match is by chance: exact binomial tails, as logarithms that do not underflow."""

import math

import numpy as np

from ks_lottery.errors import OptionError

LEVEL = 1e-9
"""A claim holds below this p-value: a forger who tries a million secrets finds one with probability .001."""


def log10_tail(hits: int, trials: int, chance: float) -> float:
    """Logarithm of the probability of at least so many hits by chance.

    Args:
        hits: from 0 to `trials`.
        trials: at least 1; independent.
        chance: probability of one hit, inside (0, 1).

    Returns:
        log10 P(X >= hits), X ~ Binomial(trials, chance); exact to rounding, also where P is below 1e-308.

    Raises:
        OptionError: if a number is out of its range.

    Cost:
        O(trials).
    """
    if not 0 <= hits <= trials or trials < 1:
        raise OptionError(f"{hits} hits in {trials} trials: give at least one trial, and from 0 to that many hits.")
    if not 0.0 < chance < 1.0:
        raise OptionError(f"chance={chance}: the probability of a hit lies between 0 and 1, both excluded.")
    if hits == 0:
        return 0.0
    from scipy.special import gammaln, logsumexp

    k = np.arange(hits, trials + 1)
    ways = gammaln(trials + 1) - gammaln(k + 1) - gammaln(trials - k + 1)
    terms = ways + k * math.log(chance) + (trials - k) * math.log1p(-chance)
    return min(0.0, float(logsumexp(terms)) / math.log(10))


def require_level(level: float) -> None:
    """Check the p-value below which a claim holds.

    Raises:
        OptionError: if it is not inside (0, 1).
    """
    if not 0.0 < level < 1.0:
        raise OptionError(f"level={level}: a claim holds below a p-value between 0 and 1, both excluded.")
