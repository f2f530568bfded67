"""One p-value out of several tests of one unit, in log space."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ks_lottery.errors import UnitError


def fisher_log_p(log_p: ArrayLike) -> NDArray[np.float64]:
    """Fisher's combination: minus twice the sum of the logs is chi-squared with two degrees of freedom per test.

    Args:
        log_p: [tests, ...] natural logs of p-values of independent tests, at most 0.

    Returns:
        [...] float64, natural log of the combined p-value; finite where p underflows. One test is given back as it is.

    Raises:
        UnitError: if there is no test, or a value is above 0 or NaN.

    Source:
        Fisher 1932; for an even number 2m of degrees of freedom P(chi2 > 2t) = exp(-t) * sum over i < m of t^i / i!.
    """
    values = np.asarray(log_p, dtype=np.float64)
    if not len(values) or not (values <= 0).all():
        raise UnitError(
            f"Fisher's combination takes logs of p-values, at most 0, of at least one test; got {len(values)} tests"
            + (f" with a largest value of {values.max()}." if values.size else ".")
        )
    if len(values) == 1:
        return values[0] + 0.0
    total = -values.sum(axis=0)
    rest, term = np.zeros_like(total), np.ones_like(total)
    for i in range(len(values)):
        term = term * total / i if i else term
        rest += term
    from scipy.special import gammainc

    # Near p = 1 the logs cancel; there the complement is small and exact.
    near_one = np.log1p(-gammainc(len(values), np.minimum(total, len(values)))) + 0.0
    return np.where(total < len(values), near_one, np.minimum(np.log(rest) - total, 0.0))
