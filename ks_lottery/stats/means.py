"""Intervals of means over a few replicates: Student's t, of one sample or with a deviation pooled over many."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ks_lottery.errors import OptionError
from ks_lottery.stats.intervals import Interval


class PooledMeans(NamedTuple):
    """Means of several samples that share one standard deviation.

    Attributes:
        means: one for each sample; None for all where no sample has two values.
        deviation: pooled standard deviation; None where no sample has two values.
        freedom: degrees of freedom, the sum of size - 1 over samples.
    """

    means: tuple[Interval | None, ...]
    deviation: float | None
    freedom: int


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Student's t interval of a mean; None for fewer than 2 values.

    Raises:
        OptionError: if the confidence is not in (0, 1).

    Source:
        Student 1908; quantiles from scipy.
    """
    return pooled_means([values], confidence).means[0]


def pooled_means(samples: Sequence[Sequence[float]], confidence: float = 0.95) -> PooledMeans:
    """Student's t intervals of the means of several samples, with one standard deviation for all.

    Two or three values say little of their own spread; taken together, the spreads of many samples say more, if they
    are alike.

    Args:
        samples: each of 1 or more values.
        confidence: of each interval by itself, in (0, 1).

    Raises:
        OptionError: if a sample is empty, or the confidence is not in (0, 1).
    """
    if not 0.0 < confidence < 1.0:
        raise OptionError(f"confidence must lie in (0, 1), got {confidence}. Use 0.95 for 95 percent.")
    if not all(len(sample) for sample in samples):
        raise OptionError("A sample has no value, so it has no mean. Leave it out.")
    from scipy.stats import t

    freedom = sum(len(sample) - 1 for sample in samples)
    if not freedom:
        return PooledMeans((None,) * len(samples), None, 0)
    squares = sum(float(np.square(np.asarray(sample) - np.mean(sample)).sum()) for sample in samples)
    deviation = float(np.sqrt(squares / freedom))
    half = float(t.ppf((1 + confidence) / 2, freedom)) * deviation
    means = [(float(np.mean(sample)), half / float(np.sqrt(len(sample)))) for sample in samples]
    return PooledMeans(tuple(Interval(mean, mean - ends, mean + ends) for mean, ends in means), deviation, freedom)
