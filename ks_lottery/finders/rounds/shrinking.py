"""Rounds that leave fewer units each time, after a schedule: what iterative pruning and its relatives share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from ks_lottery.finders.base import Evidence, UnitScores
from ks_lottery.finders.rounds.levels import Level, dense_run, everything, keep_largest, nested_scores, rank_units
from ks_lottery.finders.rounds.runs import Run, Runs
from ks_lottery.finders.schedules import Schedule, kept_counts, round_densities
from ks_lottery.finders.select import Scope
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup


@dataclass(frozen=True)
class ShrinkingRounds:
    """Each round trains, keeps the largest units that are left, and decides what the next one begins with.

    Subclasses say how it goes on. `Density` of any round's density gives exactly that round's ticket.

    Raises:
        OptionError: if an option is out of range.
    """

    needs: ClassVar[type[Evidence]] = Runs

    kind: Kind = field(
        default="weight", metadata={"help": "weight: the rest is zero; update: the rest stays as it was."}
    )
    density: float = field(default=0.1, metadata={"help": "Share of the units that is left after the last round."})
    rounds: int = field(default=3, metadata={"help": "Number of rounds; of schedule geometric, keep decides instead."})
    schedule: Schedule = field(
        default="exponential", metadata={"help": "How density falls: exponential, geometric, linear or cubic."}
    )
    keep: float = field(default=0.8, metadata={"help": "Share that each round of schedule geometric keeps."})
    scope: Scope = field(
        default="global", metadata={"help": "global: all units compete; group: each layer keeps alike."}
    )
    statistic: str = field(
        default="", metadata={"help": "Finder of two checkpoints that ranks units. Default: the size, by the kind."}
    )

    def __post_init__(self) -> None:
        round_densities(self.schedule, self.density, self.rounds, self.keep)

    def score(self, groups: Sequence[UnitGroup], evidence: Evidence) -> Iterator[UnitScores]:
        """Score every unit by the round that dropped it.

        Cost:
            One training per round, and what the method needs beside.
        """
        assert isinstance(evidence, Runs)
        yield from nested_scores(list(self.levels(groups, evidence)))

    def levels(self, groups: Sequence[UnitGroup], runs: Runs) -> Iterator[Level]:
        """The rounds, one after the other."""
        kept = everything(groups, self.kind)
        densities = round_densities(self.schedule, self.density, self.rounds, self.keep)
        level: Level | None = None
        for count in kept_counts(kept.count, densities):
            run = dense_run(groups, self.kind) if level is None else self.next_run(groups, runs, level)
            trained = runs.train(run)
            scores = rank_units(groups, self.kind, self.statistic, runs.base, trained)
            kept = keep_largest(scores, kept, count, self.scope)
            level = Level(trained, scores, kept)
            yield level

    def next_run(self, groups: Sequence[UnitGroup], runs: Runs, level: Level) -> Run:
        """What is trained after a round."""
        raise NotImplementedError
