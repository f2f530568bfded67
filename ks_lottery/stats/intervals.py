"""Confidence intervals: of a proportion, exactly; of a corpus score and of a difference of two, by paired bootstrap."""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ks_lottery.errors import DataError, OptionError

Score = Callable[[NDArray[np.float64]], ArrayLike]

_CHUNK_COUNTS = 2**20  # resampled segment numbers held at a time, 8 MiB each for numbers and counts


class Interval(NamedTuple):
    """A score with the ends of its confidence interval."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """A difference of two scores, the ends of its confidence interval, and the p-value of no difference."""

    value: float
    low: float
    high: float
    p: float


def clopper_pearson(
    successes: int, trials: int, confidence: float = 0.95, side: Literal["lower", "two-sided"] = "lower"
) -> Interval:
    """Exact interval of a proportion.

    Args:
        successes: in 0..trials.
        trials: independent trials, at least 1. Tokens of one sentence are not independent: see `bootstrap_interval`.
        confidence: in (0, 1).
        side: "lower" puts the whole error below, so `high` is 1; "two-sided" halves it.

    Returns:
        successes / trials with the interval that covers the true proportion with at least this confidence.

    Raises:
        OptionError: if a value lies outside its range.

    Source:
        Clopper & Pearson 1934.
    """
    if side not in ("lower", "two-sided"):
        raise OptionError(f"side must be 'lower' or 'two-sided', got {side!r}.")
    if trials < 1 or not 0 <= successes <= trials:
        raise OptionError(
            f"A proportion needs trials >= 1 and 0 <= successes <= trials, got {successes} of {trials}. "
            "Count both on the same held-out data."
        )
    _check_confidence(confidence)
    from scipy.stats import binomtest

    test = binomtest(successes, trials, alternative="greater" if side == "lower" else "two-sided")
    interval = test.proportion_ci(confidence_level=confidence, method="exact")
    return Interval(successes / trials, float(interval.low), float(interval.high))


def bootstrap_interval(
    stats: ArrayLike, score: Score, *, resamples: int = 1000, seed: int = 12345, confidence: float = 0.95
) -> Interval:
    """Percentile bootstrap interval of a corpus score that is a function of summed segment statistics.

    The draws depend on the number of segments, `resamples` and `seed` alone: systems scored on the same segments get
    the same resampled segments, and their intervals are paired.

    Args:
        stats: [segments, m]; for corpus BLEU the n-gram matches, n-gram totals and lengths of each sentence, for
            agreement the agreeing and all tokens of each sentence.
        score: maps sums [..., m] to scores [...], all resamples at once.
        resamples: number of resampled corpora, at least 1.
        seed: of the draws; with the default they are the segments that sacrebleu draws.
        confidence: in (0, 1).

    Returns:
        The score of the whole corpus, and the central percentiles of the resampled scores.

    Raises:
        DataError: if `stats` is not two-dimensional, has fewer than 2 segments or a value that is NaN or infinite, or
            `score` returns another shape or a NaN or infinite value.
        OptionError: if `resamples` or `confidence` lies outside its range.

    Cost:
        O(resamples * segments * m) time; about 32 MiB plus [resamples, m].

    Source:
        Efron 1979; Koehn 2004 for corpus BLEU.
    """
    _check_confidence(confidence)
    value, resampled = _scores(stats, score, resamples, seed)
    return Interval(value, *_percentiles(resampled, confidence))


def paired_bootstrap_difference(
    stats_a: ArrayLike,
    stats_b: ArrayLike,
    score: Score,
    *,
    resamples: int = 1000,
    seed: int = 12345,
    confidence: float = 0.95,
) -> Difference:
    """Paired bootstrap of score(a) - score(b): both systems are scored on the same resampled segments.

    The p-value is two-sided, (1 + c) / (1 + resamples), where c counts the resampled differences that lie at least as
    far from their mean as the observed difference lies from zero; equal systems have p = 1.

    Args:
        stats_a: [segments, m] of the first system; see `bootstrap_interval`.
        stats_b: the same of the second system, segment by segment.
        score: maps sums [..., m] to scores [...].
        resamples: number of resampled corpora, at least 1.
        seed: of the draws.
        confidence: in (0, 1).

    Returns:
        The difference on the whole corpus, the central percentiles of the resampled differences, and p.

    Raises:
        DataError: if the two shapes differ, or as for `bootstrap_interval`.
        OptionError: if `resamples` or `confidence` lies outside its range.

    Source:
        Koehn 2004; Riezler & Maxwell 2005 for the shifted null distribution.
    """
    if np.shape(stats_a) != np.shape(stats_b):
        raise DataError(
            f"A paired comparison needs the same segments and statistics, got shapes {np.shape(stats_a)} and "
            f"{np.shape(stats_b)}. Score both systems on one test set."
        )
    _check_confidence(confidence)
    value_a, resampled_a = _scores(stats_a, score, resamples, seed)
    value_b, resampled_b = _scores(stats_b, score, resamples, seed)
    value, resampled = value_a - value_b, resampled_a - resampled_b
    far = np.abs(resampled - resampled.mean()) >= abs(value)
    p = (1 + int(far.sum())) / (1 + resamples)
    return Difference(value, *_percentiles(resampled, confidence), p)


def _scores(stats: ArrayLike, score: Score, resamples: int, seed: int) -> tuple[float, NDArray[np.float64]]:
    """Score of the corpus, and [resamples] scores of the resampled corpora."""
    matrix = np.asarray(stats, dtype=np.float64)
    if matrix.ndim != 2 or len(matrix) < 2:
        raise DataError(
            f"The bootstrap resamples segments and needs statistics of shape [segments, m] with at least 2 segments, "
            f"got shape {matrix.shape}."
        )
    if not np.isfinite(matrix).all():
        segment, column = np.argwhere(~np.isfinite(matrix))[0]
        raise DataError(f"Segment {segment} has a NaN or infinite statistic in column {column}. Score it again.")
    if resamples < 1:
        raise OptionError(f"resamples must be at least 1, got {resamples}. Published tables use 1000.")
    sums = [matrix.sum(axis=0, keepdims=True)]
    sums += [counts @ matrix for counts in _resample_counts(len(matrix), resamples, seed)]
    scores = np.asarray(score(np.concatenate(sums)), dtype=np.float64)
    if scores.shape != (1 + resamples,):
        raise DataError(
            f"score must map sums of shape {(1 + resamples, matrix.shape[1])} to shape {(1 + resamples,)}, got "
            f"{scores.shape}. Index its argument as sums[..., column]."
        )
    if not np.isfinite(scores).all():
        raise DataError(
            f"score returned NaN or infinity for {int((~np.isfinite(scores)).sum())} of {1 + resamples} corpora. "
            "Guard its divisions: a resampled corpus may lack what a segment holds."
        )
    return float(scores[0]), scores[1:]


def _resample_counts(segments: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each segment is drawn: chunks [<= resamples, segments] that add up to `resamples` rows."""
    generator = np.random.default_rng(seed)
    rows_per_chunk = max(1, _CHUNK_COUNTS // segments)
    for start in range(0, resamples, rows_per_chunk):
        rows = min(rows_per_chunk, resamples - start)
        drawn = generator.integers(segments, size=(rows, segments))
        drawn += segments * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * segments)
        yield counts.reshape(rows, segments).astype(np.float64)


def _percentiles(scores: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    outside = (1.0 - confidence) / 2.0
    low, high = np.quantile(scores, [outside, 1.0 - outside])
    return float(low), float(high)


def _check_confidence(confidence: float) -> None:
    if not 0.0 < confidence < 1.0:
        raise OptionError(f"confidence must lie in (0, 1), got {confidence}. Use 0.95 for 95 percent.")
