"""Rounds of train, score and drop: what every iterative method has in common."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ks_lottery.checkpoints.reader import Checkpoint
from ks_lottery.errors import OptionError
from ks_lottery.finders.base import Finder, Shift, UnitScores, finder
from ks_lottery.finders.rounds.runs import Kept, Run, Runs
from ks_lottery.finders.select import Scope, largest
from ks_lottery.finders.shift.criteria import Criterion
from ks_lottery.finders.shift.magnitude import Magnitude
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup, parameters_of

STATISTICS: dict[Kind, Finder] = {"weight": Criterion(rule="large_final"), "update": Magnitude()}
"""What the rounds rank units by if nothing else is asked for: the size of the trained weights, or of their move."""


@dataclass(frozen=True)
class Level:
    """One round.

    Attributes:
        trained: what the round's training ended with.
        scores: of all units after it; those of units that were dropped before mean nothing.
        kept: what is left after the round.
    """

    trained: Checkpoint
    scores: list[UnitScores]
    kept: Kept


def everything(groups: Sequence[UnitGroup], kind: Kind) -> Kept:
    """All units: where rounds begin."""
    return Kept(tuple(groups), tuple(np.arange(group.num_units) for group in groups), kind)


def trained_parameters(groups: Sequence[UnitGroup], kind: Kind) -> tuple[str, ...] | None:
    """What trains in the rounds: of an update ticket its groups' parameters alone, else everything."""
    return tuple(parameters_of(groups)) if kind == "update" else None


def dense_run(groups: Sequence[UnitGroup], kind: Kind, last_step: int | None = None) -> Run:
    """The training with nothing dropped."""
    return Run(trains=trained_parameters(groups, kind), last_step=last_step)


def rank_units(
    groups: Sequence[UnitGroup], kind: Kind, statistic: str, before: Checkpoint, trained: Checkpoint
) -> list[UnitScores]:
    """Score units by a finder of two checkpoints.

    Args:
        groups: the units.
        kind: of the ticket.
        statistic: name of the finder; the kind's own of `STATISTICS` if empty.
        before: start of the training.
        trained: its end.

    Raises:
        OptionError: if the finder looks at something else.
    """
    method = finder(statistic) if statistic else STATISTICS[kind]
    if method.needs is not Shift:
        raise OptionError(
            f"statistic={statistic!r}: rounds rank units by a finder of two checkpoints, and this one looks at "
            f"{method.needs.described}. Take 'magnitude', 'criterion' or 'ks'."
        )
    return list(method.score(groups, Shift(before, trained)))


def keep_largest(scores: Sequence[UnitScores], kept: Kept, count: int, scope: Scope) -> Kept:
    """The kept units with the largest scores.

    Args:
        scores: of all units.
        kept: what is left so far.
        count: how many units stay, over all groups.
        scope: "group": each group keeps the same share of its units, to the nearest whole number and at least one.
    """
    candidates = [_mask(group, indices) for group, indices in zip(kept.groups, kept.indices, strict=True)]
    values = [entry.score for entry in scores]
    if scope == "global":
        chosen = largest(values, candidates, count)
    else:
        share = count / sum(group.num_units for group in kept.groups)
        chosen = [
            largest([one], [allowed], min(int(allowed.sum()), max(1, round(share * len(one)))))[0]
            for one, allowed in zip(values, candidates, strict=True)
        ]
    return Kept(kept.groups, tuple(chosen), kept.rest)


def nested_scores(levels: Sequence[Level]) -> Iterator[UnitScores]:
    """Scores under which every level's units come before those that the level dropped.

    A unit's score is the number of levels that it survived, plus its score at the level that dropped it (or at the
    last one) squeezed into [0, 1): `Density` of any level cuts exactly that level's units. The column `survived` holds
    the whole part.
    """
    survived, last = [], []
    for place, group in enumerate(levels[0].kept.groups):
        levels_survived = np.zeros(group.num_units)
        score = levels[0].scores[place].score.astype(np.float64)
        for level, following in zip(levels, [*levels[1:], None], strict=True):
            indices = level.kept.indices[place]
            levels_survived[indices] += 1
            if following is not None:
                score[indices] = following.scores[place].score[indices]
        survived.append(levels_survived)
        last.append(score)
    lowest = min(float(score.min()) for score in last)
    width = max(float(score.max()) for score in last) - lowest
    for first, whole, score in zip(levels[0].scores, survived, last, strict=True):
        # A little below 1 at most, so that no unit of a level reaches the next one.
        squeezed = (score - lowest) * (1 - 2.0**-20) / width if width > 0 else np.zeros_like(score)
        yield UnitScores(first.group, score=whole + squeezed, changed=first.changed, columns={"survived": whole})


def require_rewind(step: int, runs: Runs, name: str) -> None:
    """Check a rewind step.

    Raises:
        OptionError: if it is negative, or no step is left after it.
    """
    if not 0 <= step < runs.steps:
        raise OptionError(
            f"Finder {name!r}, rewind={step}: a training has {runs.steps} steps, so rewind to a step from 0 (the "
            f"pretrained weights) to {runs.steps - 1}."
        )


def _mask(group: UnitGroup, indices: np.ndarray) -> np.ndarray:
    mask = np.zeros(group.num_units, dtype=bool)
    mask[indices] = True
    return mask
