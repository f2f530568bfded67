"""Corrections for many tests at once, in log space.

Before and after rows of a checkpoint are paired and not iid, so the p-values that enter here are effect-size codes. A
correction then moves the threshold on D with the number of rows tested; it does not turn alpha into an error rate.
Rows that are bit-identical in both checkpoints only inflate the count: drop them beforehand and report how many were
tested.
"""

import difflib

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ks_lottery.errors import OptionError, UnitError
from ks_lottery.stats.pvalues import log_level

CORRECTIONS = ("none", "bonferroni", "holm", "bh")


def adjust_log_p(log_p: ArrayLike, correction: str) -> NDArray[np.float64]:
    """Adjusted p-values, as logarithms: a test is rejected at level alpha if its adjusted p lies below alpha.

    With p sorted ascending as p_1 .. p_m, and every result at most 1:

    | correction | adjusted p_i |
    | --- | --- |
    | `none` | p_i |
    | `bonferroni` | m p_i |
    | `holm` | max over j <= i of (m - j + 1) p_j |
    | `bh` | min over j >= i of (m / j) p_j |

    Args:
        log_p: [m] natural logs of p-values, at most 0; values far below -745, where p underflows, keep their order.
        correction: one of `CORRECTIONS`.

    Returns:
        [m] float64, in the order of `log_p`, at most 0.

    Raises:
        OptionError: if the correction is unknown.
        UnitError: if `log_p` is not one-dimensional, or holds NaN or a value above 0.

    Source:
        Holm 1979; Benjamini & Hochberg 1995.
    """
    if correction not in CORRECTIONS:
        close = difflib.get_close_matches(str(correction), CORRECTIONS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise OptionError(f"Unknown correction {correction!r}.{hint} Available: {', '.join(CORRECTIONS)}.")
    values: NDArray[np.float64] = np.array(log_p, dtype=np.float64)
    if values.ndim != 1:
        raise UnitError(f"log_p must have shape [tests], got {values.shape}. Concatenate what is corrected together.")
    if not (values <= 0.0).all():
        worst = int(np.flatnonzero(~(values <= 0.0))[0])
        raise UnitError(
            f"log_p holds {values[worst]} at position {worst}, but the log of a p-value is at most 0. "
            "Pass logarithms, not p-values."
        )
    tests = len(values)
    if correction == "none" or tests == 0:
        return values
    if correction == "bonferroni":
        values += np.log(tests)
        return values.clip(max=0.0)
    order = np.argsort(values, kind="stable")
    rank = np.arange(1, tests + 1)
    if correction == "holm":
        stepwise = np.maximum.accumulate(values[order] + np.log(tests - rank + 1))
    else:
        stepwise = np.minimum.accumulate((values[order] + np.log(tests / rank))[::-1])[::-1]
    adjusted = np.empty(tests)
    adjusted[order] = stepwise.clip(max=0.0)
    return adjusted


def rejected(log_p: ArrayLike, alpha: float, correction: str = "none") -> NDArray[np.bool_]:
    """Which tests are rejected at level alpha.

    The comparison is strict for every correction, adjusted p < alpha: it is the rule of KS-Lottery for `none`, and it
    leaves rows that did not move (p = 1) unselected at alpha = 1.

    Args:
        log_p: [m] natural logs of p-values.
        alpha: level in (0, 1].
        correction: one of `CORRECTIONS`.

    Returns:
        [m] bool.

    Raises:
        OptionError: if alpha lies outside (0, 1], or the correction is unknown.
        UnitError: if `log_p` is not one-dimensional, or holds NaN or a value above 0.

    Source:
        Yuan et al. 2025 (KS-Lottery): a row is selected if p < alpha.
    """
    mask: NDArray[np.bool_] = adjust_log_p(log_p, correction) < log_level(alpha)
    return mask
