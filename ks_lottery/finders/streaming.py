"""Exact selection of the largest scores without holding them: for pools of billions of units."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ks_lottery.errors import TicketError
from ks_lottery.finders.base import UnitScores
from ks_lottery.finders.select import largest
from ks_lottery.stats.topk import Descent

_HELD = 2**22  # candidates that may be held to finish with a sort

Rescore = Callable[[], Iterator[tuple[UnitScores, NDArray[np.bool_]]]]


def largest_streamed(rescore: Rescore, k: int) -> list[NDArray[np.int64]]:
    """Exactly the `k` candidates with the largest scores; on equal scores the earlier group, then the earlier unit.

    A radix descent, as `largest` makes it, that ends as soon as few enough candidates are left to be held and sorted.

    Args:
        rescore: starts a pass over the groups, each time with the same results: scores, and [num_units] bool, which of
            them may be chosen.
        k: how many, at least 1.

    Returns:
        per group, sorted int64 indices of the chosen units.

    Raises:
        TicketError: if fewer than `k` units are candidates.
        UnitError: if the score of a candidate is NaN.

    Cost:
        Two passes as a rule, five at most; memory of one group, of the result, and 64 MiB.
    """
    descent = Descent(k)
    while not descent.settled and not 0 < descent.inside <= _HELD:
        for scores, allowed in rescore():
            descent.count(scores.score, allowed, scores.group.name)
        descent.narrow()
        if descent.total < k:
            raise TicketError(
                f"{k} units are asked for, but only {descent.total} can be selected (units that did not change or that "
                "are no candidates are left out). Ask for fewer."
            )
    return _first_tied(rescore, descent) if descent.settled else _largest_inside(rescore, descent)


def _first_tied(rescore: Rescore, descent: Descent) -> list[NDArray[np.int64]]:
    """Everything above the prefix, and the first of what has it."""
    chosen, left = [], descent.left
    for scores, allowed in rescore():
        indices, tied = descent.above(scores.score, allowed, left)
        chosen.append(indices)
        left -= tied
    return chosen


def _largest_inside(rescore: Rescore, descent: Descent) -> list[NDArray[np.int64]]:
    """Everything above the prefix, and the largest of what has it."""
    above: list[NDArray[np.int64]] = []
    inside: list[NDArray[np.int64]] = []
    scored: list[NDArray[np.floating]] = []
    for scores, allowed in rescore():
        above.append(descent.above(scores.score, allowed)[0])
        inside.append(descent.within(scores.score, allowed))
        scored.append(scores.score[inside[-1]])
    taken = largest(scored, [None] * len(scored), descent.left)
    return [
        np.sort(np.concatenate([sure, border[here]])) for sure, border, here in zip(above, inside, taken, strict=True)
    ]
