"""Exact selection of the largest scores without holding them: for pools of billions of units."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ks_lottery.errors import TicketError
from ks_lottery.finders.base import UnitScores
from ks_lottery.stats.floats import FloatBits

_DIGIT_BITS = 16
_HELD = 2**22  # candidates that may be held to finish with a sort

Rescore = Callable[[], Iterator[tuple[UnitScores, NDArray[np.bool_]]]]


def largest_streamed(rescore: Rescore, k: int) -> list[NDArray[np.int64]]:
    """Exactly the `k` candidates with the largest scores; on equal scores the earlier group, then the earlier unit.

    A radix descent: each pass counts the next 16 bits of the order-preserving keys of all scores that share the digits
    found so far, until few enough are left, or all bits are read and the rest are ties.

    Args:
        rescore: starts a pass over the groups, each time with the same results: scores, and [num_units] bool, which of
            them may be chosen.
        k: how many, at least 1.

    Returns:
        per group, sorted int64 indices of the chosen units.

    Raises:
        TicketError: if fewer than `k` units are candidates.

    Cost:
        Two passes as a rule, five at most; memory of one group, of the result, and 64 MiB.
    """
    prefix, shift, left = 0, 64, k
    while True:
        shift -= _DIGIT_BITS
        counts = np.zeros(2**_DIGIT_BITS, dtype=np.int64)
        for keys in (_keys(scores)[allowed] for scores, allowed in rescore()):
            if shift + _DIGIT_BITS < 64:
                keys = keys[keys >> np.uint64(shift + _DIGIT_BITS) == prefix]
            digits = (keys >> np.uint64(shift)) & np.uint64(2**_DIGIT_BITS - 1)
            counts += np.bincount(digits.astype(np.int64), minlength=2**_DIGIT_BITS)
        if shift == 64 - _DIGIT_BITS and counts.sum() < k:
            raise TicketError(
                f"{k} units are asked for, but only {counts.sum()} can be selected (units that did not change or that "
                "are no candidates are left out). Ask for fewer."
            )
        above = counts[::-1].cumsum()[::-1] - counts  # scores with a larger digit
        digit = int(np.flatnonzero(above < left)[0])
        left -= int(above[digit])
        prefix = (prefix << _DIGIT_BITS) | digit
        if shift == 0 or counts[digit] <= _HELD:
            return _collect(rescore, np.uint64(prefix), np.uint64(shift), left, tied=shift == 0)


def _collect(rescore: Rescore, prefix: np.uint64, shift: np.uint64, left: int, tied: bool) -> list[NDArray[np.int64]]:
    """Everything above the prefix, and the first `left` of what has it: the largest, or if all are equal the first."""
    chosen: list[NDArray[np.int64]] = []
    border: list[tuple[NDArray[np.uint64], NDArray[np.int64]]] = []
    for scores, allowed in rescore():
        keys = _keys(scores)
        digits = keys >> shift
        chosen.append(np.flatnonzero((digits > prefix) & allowed))
        here = np.flatnonzero((digits == prefix) & allowed)
        if tied:
            here = here[: left - sum(len(units) for _, units in border)]
        border.append((keys[here], here))
    keys = np.concatenate([keys for keys, _ in border])
    order = np.argsort(~keys, kind="stable")[:left]
    taken = np.zeros(len(keys), dtype=bool)
    taken[order] = True
    bounds = np.cumsum([0, *(len(units) for _, units in border)])
    return [
        np.sort(np.concatenate([above, units[taken[low:high]]]))
        for above, (_, units), low, high in zip(chosen, border, bounds, bounds[1:], strict=False)
    ]


def _keys(scores: UnitScores) -> NDArray[np.uint64]:
    """Unsigned integers in the order of the scores."""
    bits = FloatBits(np.ascontiguousarray(scores.score, dtype=np.float64).view(np.int64), "float64")
    return bits.keys().view(np.uint64) ^ np.uint64(2**63)
