"""COLT: the overlap of tickets that were found on partitions of the data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from ks_lottery.errors import OptionError, TicketError
from ks_lottery.finders.base import FINDERS, Evidence, UnitScores
from ks_lottery.finders.rounds.levels import (
    Level,
    everything,
    keep_largest,
    nested_scores,
    rank_units,
    trained_parameters,
)
from ks_lottery.finders.rounds.runs import Kept, Run, Runs
from ks_lottery.finders.select import Scope
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup


@FINDERS.register("colt")
@dataclass(frozen=True)
class CyclicOverlap:
    """Rounds that train one model per data partition from the same weights and keep what all of them would keep.

    Each partition's model drops the same share of the remaining units; the overlap is therefore smaller than that, by
    how much depends on the data, and the column `survived` tells after how many rounds a unit was still there. An
    overlap shows shared structure only where it exceeds (1 - drop) ** partitions.

    Raises:
        OptionError: if an option is out of range, or the evidence has fewer than two partitions.
        TicketError: if the partitions agree on no unit.

    Source:
        Hossain et al. 2022, arXiv 2212.12770; all models rewind to the pretrained weights.
    """

    name: ClassVar[str] = "colt"
    citation: ClassVar[str] = "Hossain et al. COLT: Cyclic Overlapping Lottery Tickets for Faster Pruning. 2022."
    needs: ClassVar[type[Evidence]] = Runs

    kind: Kind = field(
        default="weight", metadata={"help": "weight: the rest is zero; update: the rest stays as it was."}
    )
    density: float = field(default=0.1, metadata={"help": "Rounds end when at most this share of the units is left."})
    drop: float = field(default=0.15, metadata={"help": "Share of the remaining units that each partition drops."})
    scope: Scope = field(
        default="global", metadata={"help": "global: all units compete; group: each layer keeps alike."}
    )
    statistic: str = field(
        default="", metadata={"help": "Finder of two checkpoints that ranks units. Default: the size, by the kind."}
    )

    def __post_init__(self) -> None:
        for option in ("density", "drop"):
            if not 0.0 < getattr(self, option) < 1.0:
                raise OptionError(f"Finder 'colt', {option}={getattr(self, option)}: must lie between 0 and 1.")

    def score(self, groups: Sequence[UnitGroup], evidence: Evidence) -> Iterator[UnitScores]:
        """Score every unit by the round that dropped it; errors as the class says.

        Cost:
            One training per partition and round.
        """
        assert isinstance(evidence, Runs)
        yield from nested_scores(list(self.levels(groups, evidence)))

    def levels(self, groups: Sequence[UnitGroup], runs: Runs) -> Iterator[Level]:
        """The rounds, one after the other; their scores are the smallest over the partitions."""
        if runs.parts < 2:
            raise OptionError(
                f"Finder 'colt' overlaps tickets of several data partitions, but the evidence has {runs.parts}. Give "
                "trainer_runs parts=2 or more."
            )
        kept = everything(groups, self.kind)
        target = max(1, round(self.density * kept.count))
        while kept.count > target:
            kept_of, scores_of = [], []
            for part in range(runs.parts):
                started = kept if kept.count < sum(group.num_units for group in groups) else None
                trained = runs.train(Run(None, started, trained_parameters(groups, self.kind), part=part))
                scores = rank_units(groups, self.kind, self.statistic, runs.base, trained)
                count = max(1, min(kept.count - 1, round((1 - self.drop) * kept.count)))
                kept_of.append(keep_largest(scores, kept, count, self.scope))
                scores_of.append(scores)
            kept = _overlap(kept_of)
            yield Level(trained, _smallest(scores_of), kept)


def _overlap(kept: Sequence[Kept]) -> Kept:
    indices = list(kept[0].indices)
    for other in kept[1:]:
        indices = [np.intersect1d(mine, theirs) for mine, theirs in zip(indices, other.indices, strict=True)]
    if not any(map(len, indices)):
        raise TicketError(
            f"The tickets of {len(kept)} data partitions have no unit in common: there is no structure that they "
            "share at this density. Stop at a larger density, or drop a smaller share per round."
        )
    return Kept(kept[0].groups, tuple(indices), kept[0].rest)


def _smallest(scores: Sequence[Sequence[UnitScores]]) -> list[UnitScores]:
    """Per unit its smallest score, each partition's scaled by its largest one."""
    largest = [max(float(entry.score.max()) for entry in one) or 1.0 for one in scores]
    return [
        replace(
            entries[0],
            score=np.minimum.reduce([entry.score / top for entry, top in zip(entries, largest, strict=True)]),
            changed=np.logical_or.reduce([entry.changed for entry in entries]),
            columns={},
            log_p=None,
        )
        for entries in zip(*scores, strict=True)
    ]
