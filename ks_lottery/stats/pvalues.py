"""Exact p-values of the two-sample Kolmogorov-Smirnov statistic for samples of equal size, as logarithms.

Before and after rows of a checkpoint are *paired* and their entries are not independent draws. A p-value computed from
them is therefore an effect-size code, not an error rate: it orders units and it names a threshold on D, no more.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ks_lottery.errors import OptionError, UnitError

if TYPE_CHECKING:
    import torch

# Above this h / sqrt(2n) the tail series is used, below it the series of the complement. At the border the terms left
# out (k > 5, j > 5) are below 1e-19 of the first one in both.
_BORDER = 0.8
_TAIL_TERMS = 5
_ODD_TERMS = (1, 3, 5)


def log_p_values(h: "ArrayLike | torch.Tensor | Sequence[int]", n: int) -> NDArray[np.float64]:
    """Logarithm of P(D >= h/n) for two independent samples of n values each from one continuous distribution.

    Args:
        h: integers in 0..n, any shape; the statistic is D = h / n.
        n: sample size, at least 1.

    Returns:
        float64 array of the shape of `h`: natural log of the p-value; 0.0 for h = 0 and h = 1. It stays finite where p
        itself underflows.

    Raises:
        UnitError: if n < 1, or h is not an integer in 0..n.

    Cost:
        O(size of h); nothing of size n.

    Source:
        Gnedenko & Korolyuk 1951; the complement by the trigonometric count of walks in a strip.
    """
    _check_size(n)
    statistics = np.asarray(h)
    if statistics.size and not np.issubdtype(statistics.dtype, np.integer):
        raise UnitError(
            f"h counts steps of 1/n and is an integer, got dtype {statistics.dtype}. Pass h = D * n as integers."
        )
    if statistics.size and (statistics.min() < 0 or statistics.max() > n):
        raise UnitError(
            f"h must lie in 0..n = 0..{n}, got values from {statistics.min()} to {statistics.max()}. "
            "Pass the n that the statistic was computed with."
        )
    distinct, position = np.unique(statistics.astype(np.int64), return_inverse=True)
    log_p = np.zeros(distinct.shape)
    tail = distinct > _BORDER * np.sqrt(2.0 * n)
    log_p[tail] = _log_tail(distinct[tail], n)
    inner = ~tail & (distinct > 1)
    log_p[inner] = np.log1p(-_complement(distinct[inner], n)) + 0.0
    return log_p[position].reshape(statistics.shape)


@lru_cache(maxsize=8)
def log_p_table(n: int) -> NDArray[np.float64]:
    """Logarithm of P(D >= h/n) for every h in 0..n; see `log_p_values`.

    Args:
        n: sample size, at least 1.

    Returns:
        [n + 1] float64, read-only, non-increasing.

    Raises:
        UnitError: if n < 1.

    Cost:
        O(n), once per n; the last 8 tables are kept.
    """
    _check_size(n)
    table = log_p_values(np.arange(n + 1), n)
    table.setflags(write=False)
    return table


def critical_statistic(n: int, alpha: float) -> int:
    """Smallest h whose p-value is below alpha: a unit passes the level exactly when its h reaches it.

    For Bonferroni over V units pass alpha / V.

    Args:
        n: sample size, at least 1.
        alpha: level in (0, 1].

    Returns:
        h in 1..n; n + 1 if not even D = 1 has p < alpha.

    Raises:
        OptionError: if alpha lies outside (0, 1].
        UnitError: if n < 1.
    """
    _check_size(n)
    log_alpha = log_level(alpha)
    low, high = 0, n + 1
    while high - low > 1:
        middle = (low + high) // 2
        if log_p_values([middle], n)[0] < log_alpha:
            high = middle
        else:
            low = middle
    return high


def log_level(alpha: float) -> float:
    """Natural log of a level.

    Raises:
        OptionError: if alpha lies outside (0, 1].
    """
    if not 0.0 < alpha <= 1.0:
        raise OptionError(f"alpha must lie in (0, 1], got {alpha}. The paper's strict setting is 0.05.")
    return float(np.log(alpha))


def _check_size(n: int) -> None:
    if n < 1:
        raise UnitError(f"A two-sample test needs at least 1 value per sample, got n = {n}. Pass the row length.")


def _log_tail(h: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """Log of 2 * sum over k >= 1 of (-1)^(k-1) C(2n, n - kh) / C(2n, n)."""
    first = _log_binomial_ratio(h, n)
    rest = np.zeros(h.shape)
    for k in range(2, _TAIL_TERMS + 1):
        inside = k * h <= n
        term = np.exp(_log_binomial_ratio(k * h[inside], n) - first[inside])
        rest[inside] += term if k % 2 else -term
    first += np.log(2.0) + np.log1p(rest)
    return first


def _complement(h: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """P(D < h/n) = (1/h) * sum over odd j < 2h of (2 cos(j pi / 2h))^(2n) / C(2n, n), for h >= 2; all terms positive.

    Terms j and 2h - j are equal and the middle one is zero, so twice the sum over j < h is taken.
    """
    log_central = 0.5 * np.log(np.pi * n) - _stirling_rest(2 * n) + 2.0 * _stirling_rest(n)  # of 4^n / C(2n, n)
    total = np.zeros(h.shape)
    for j in _ODD_TERMS:
        inside = j < h
        sine = np.sin(j * np.pi / (2.0 * h[inside]))
        total[inside] += np.exp(n * np.log1p(-sine * sine) + log_central)
    return 2.0 * total / h


def _log_binomial_ratio(m: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """Log of C(2n, n - m) / C(2n, n) for 0 <= m <= n.

    Differences of log-factorials of size n log n would cancel; in Stirling's form those parts drop out beforehand and
    the error stays a few units in the last place of the result.
    """
    from scipy.special import xlog1py

    x = m / n
    rests = 2.0 * _log_factorial_rest(np.array(n)) - _log_factorial_rest(n - m) - _log_factorial_rest(n + m)
    ratio: NDArray[np.float64] = rests - xlog1py(n - m, -x) - xlog1py(n + m, x)
    return ratio


def _log_factorial_rest(k: NDArray[np.int64]) -> NDArray[np.float64]:
    """log(k!) - (k log k - k), for k >= 0."""
    positive = np.maximum(k, 1)
    return np.where(k > 0, 0.5 * np.log(2.0 * np.pi * positive) + _stirling_rest(positive), 0.0)


def _stirling_rest(k: ArrayLike) -> NDArray[np.float64]:
    """log(k!) - ((k + 1/2) log k - k + log(2 pi) / 2), for k >= 1: Stirling's series, or the definition for small k."""
    from scipy.special import gammaln, xlogy

    k = np.asarray(k, dtype=np.float64)
    small = np.minimum(k, 16.0)
    defined = gammaln(small + 1.0) - xlogy(small + 0.5, small) + small - 0.5 * np.log(2.0 * np.pi)
    inverse = 1.0 / k
    square = inverse * inverse
    series = inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680)))
    return np.where(k > 16.0, series, defined)
