"""p-values of the two-sample Kolmogorov-Smirnov statistic for samples of unequal size, as logarithms.

A p-value of values that are not independent draws is an effect-size code and no error rate; see `pvalues`.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ks_lottery.errors import UnitError
from ks_lottery.stats.jit import can_compile, kernel
from ks_lottery.stats.pvalues import log_p_values

if TYPE_CHECKING:
    import torch

EXACT_PRODUCT = 10**8  # the exact route is taken up to this n * m
_STEP = 512  # a probability is held as mantissa * 2 ** (_STEP * exponent): it never underflows
_SMALLEST = 2.0**-_STEP
_NEVER = -(2**60)  # exponent that stands for probability zero
_FAR = 5.0  # from here on the second term of Kolmogorov's series is below 1e-65 of the first
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
_SEARCH_STEPS = 48
_ALMOST = -1.0 + 2.0**-53  # log1p of it is finite


def log_p_unequal(k: "ArrayLike | torch.Tensor | Sequence[int]", n: int, m: int) -> NDArray[np.float64]:
    """Logarithm of P(D >= k / lcm(n, m)) for independent samples of n and of m values from one continuous distribution.

    Up to n * m = `EXACT_PRODUCT` the p-value is exact: its relative error is below 1e-10, at any size of p. Above, it
    is Kolmogorov's limit law with Hodges' correction and the large-deviation rate of the two samples. Beside exact
    values at n * m = 10^8, the relative error of p stayed below

    | smaller sample | p > 0.01 | p > 1e-20 | p > 1e-200 |
    | --- | --- | --- | --- |
    | 3,000 to 10,000 | 2 % | 5 % | 20 % |
    | 1,000 | 0.2 % | 1 % | 10 % |
    | 100 | 2 % | 10 % | 50 % |

    and that of log p below 0.5 % wherever p < 0.5. For n = m this is `log_p_values`, which is exact at any size.

    Args:
        k: integers in 0..lcm(n, m), any shape; the statistic is D = k / lcm(n, m).
        n: size of one sample, at least 1.
        m: size of the other, at least 1.

    Returns:
        float64 array of the shape of `k`: natural log of the p-value, at most 0. It stays finite where p underflows.

    Raises:
        UnitError: if a sample is empty, or k is not an integer in 0..lcm(n, m).

    Cost:
        Exact: O(D * n * m) time per distinct k, half a second for D = 1 at the limit; O(min(n, m)) memory; a
        hundred times more where numba is missing. Above: O(1) per k.

    Source:
        Viehmann 2021 (arXiv:2102.08037) for the recurrence of positive terms; Hodges 1957 for the correction.
    """
    if min(n, m) < 1:
        raise UnitError(
            f"A two-sample test needs at least 1 value per sample, got n = {n} and m = {m}. Leave the pair out."
        )
    common = math.lcm(n, m)
    steps = np.asarray(k)
    if steps.size and not np.issubdtype(steps.dtype, np.integer):
        raise UnitError(
            f"k counts steps of 1/lcm(n, m) and is an integer, got dtype {steps.dtype}. "
            f"Pass k = D * {common} as integers."
        )
    if steps.size and (steps.min() < 0 or steps.max() > common):
        raise UnitError(
            f"k must lie in 0..lcm(n, m) = 0..{common}, got values from {steps.min()} to {steps.max()}. "
            "Pass the sizes that the statistic was computed with."
        )
    if n == m:
        return log_p_values(steps, n)
    distinct, position = np.unique(steps.astype(np.int64), return_inverse=True)
    if n * m <= EXACT_PRODUCT:
        log_p = np.array([_exact_log_p(int(step), n, m) for step in distinct])
    else:
        log_p = _limit_log_p(distinct, n, m)
    return log_p[position].reshape(steps.shape)


def _exact_log_p(k: int, n: int, m: int) -> float:
    """Log of the share of lattice paths from (0, 0) to (n, m) that reach |i / n - j / m| >= k / lcm(n, m)."""
    if k == 0:
        return 0.0
    n, m = max(n, m), min(n, m)
    divisor = math.gcd(n, m)
    mantissa, exponent = _walk()(k, n, m, n // divisor, m // divisor)
    return min(0.0, math.log(mantissa) + exponent * _STEP * math.log(2.0))


@lru_cache(maxsize=1)
def _walk() -> Callable[[int, int, int, int, int], tuple[float, int]]:
    """`_reaching_share`, compiled where that is possible; the result is the same, a hundred times sooner."""
    return kernel()(_reaching_share) if can_compile() else _reaching_share


def _reaching_share(k: int, n: int, m: int, a: int, b: int) -> tuple[float, int]:
    """Share of the paths to (n, m) that reach |i * b - j * a| >= k, as mantissa and exponent.

    The share q of paths to (i, j) is 1 out there, and inside, where the last step came from one side or the other,
    q(i, j) = q(i - 1, j) * i / (i + j) + q(i, j - 1) * j / (i + j). Only the cells inside are walked.
    """
    mantissa = np.ones(m + 1)
    exponent = np.zeros(m + 1, dtype=np.int64)
    inside = min(m, (k - 1) // a) + 1
    mantissa[:inside] = 0.0
    exponent[:inside] = _NEVER
    for i in range(1, n + 1):
        first = max(0, (i * b - k) // a + 1)
        last = min(m, (i * b + k - 1) // a)
        value, scale = (1.0, 0) if first > 0 else (0.0, _NEVER)
        for j in range(first, last + 1):
            weight = 1.0 / (i + j)
            beside, below = mantissa[j] * (i * weight), value * (j * weight)
            if exponent[j] == scale:
                value = beside + below
            elif exponent[j] > scale:
                value = beside + (below * _SMALLEST if exponent[j] == scale + 1 else 0.0)
                scale = exponent[j]
            else:
                value = below + (beside * _SMALLEST if scale == exponent[j] + 1 else 0.0)
            if 0.0 < value < _SMALLEST:
                value /= _SMALLEST
                scale -= 1
            mantissa[j], exponent[j] = value, scale
    return mantissa[m], exponent[m]


def _limit_log_p(k: NDArray[np.int64], n: int, m: int) -> NDArray[np.float64]:
    """Log of Kolmogorov's law at the corrected statistic, its Gaussian rate replaced by that of the two samples."""
    from scipy.special import kolmogorov

    n, m = max(n, m), min(n, m)
    common = math.lcm(n, m)
    effective = n * m / (n + m)
    skewness = (n + 2 * m) / (6.0 * math.sqrt(n) * math.sqrt(m) * math.sqrt(n + m))
    z = np.maximum(0.0, math.sqrt(effective) * (k - 0.5) / common + skewness)
    log_p = np.log(2.0) - 2.0 * z * z
    near = z < _FAR
    log_p[near] = np.log(kolmogorov(z[near]))
    d = k / common
    return np.minimum(0.0, log_p + 2.0 * effective * d * d - _rate(d, n, m))


def _rate(d: NDArray[np.float64], n: int, m: int) -> NDArray[np.float64]:
    """Least cost of a distance d: min over s of n KL(s + d m / (n + m), s) + m KL(s - d n / (n + m), s).

    The cost is convex in s, the share of the pooled values that lie below the point of the largest distance.
    """
    from scipy.special import xlog1py

    up, down = d * (m / (n + m)), d * (n / (n + m))

    def cost(s: NDArray[np.float64]) -> NDArray[np.float64]:
        above, below = np.maximum(0.0, 1.0 - s - up), np.maximum(0.0, s - down)
        first = xlog1py(s + up, up / s) + xlog1py(above, np.maximum(_ALMOST, -up / (1.0 - s)))
        second = xlog1py(below, np.maximum(_ALMOST, -down / s)) + xlog1py(1.0 - s + down, down / (1.0 - s))
        return np.asarray(n * first + m * second)

    low, high = down, 1.0 - up
    for _ in range(_SEARCH_STEPS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        better = cost(left) < cost(right)
        low, high = np.where(better, low, left), np.where(better, right, high)
    return cost(0.5 * (low + high))
