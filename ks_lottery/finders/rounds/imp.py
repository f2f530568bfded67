"""Iterative magnitude pruning: train, drop the smallest, rewind, repeat."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from ks_lottery.checkpoints.reader import Checkpoint
from ks_lottery.finders.base import FINDERS, Evidence, UnitScores
from ks_lottery.finders.rounds.levels import (
    Level,
    dense_run,
    everything,
    keep_largest,
    nested_scores,
    rank_units,
    require_rewind,
    trained_parameters,
)
from ks_lottery.finders.rounds.runs import Run, Runs
from ks_lottery.finders.schedules import Schedule, kept_counts, round_densities
from ks_lottery.finders.select import Scope
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup


@FINDERS.register("imp")
@dataclass(frozen=True)
class IterativeMagnitude:
    """Rounds of training; each drops the units with the smallest trained weights and rewinds the others.

    Of a weight ticket the size is |W| and what is dropped is zero; of an update ticket it is |W - base|, and what is
    dropped keeps its pretrained value. `Density` of any round's density gives exactly that round's ticket.

    Raises:
        OptionError: if an option is out of range; when scoring, if no step is left after the rewind step.

    Source:
        Frankle & Carbin 2019, arXiv 1803.03635 (rewind 0); Frankle et al. 2020, arXiv 1912.05671 (rewind k). The
        weights of step k come from the dense run, as there.
    """

    name: ClassVar[str] = "imp"
    citation: ClassVar[str] = "Frankle & Carbin. The Lottery Ticket Hypothesis. ICLR 2019."
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
    rewind: int = field(default=0, metadata={"help": "Optimizer step to rewind to; 0: the pretrained weights."})
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

        Raises:
            OptionError: if the rewind step is beyond the training.

        Cost:
            One training per round, and the first k steps of one where it rewinds to step k.
        """
        assert isinstance(evidence, Runs)
        yield from nested_scores(list(self.levels(groups, evidence)))

    def levels(self, groups: Sequence[UnitGroup], runs: Runs) -> Iterator[Level]:
        """The rounds, one after the other."""
        require_rewind(self.rewind, runs, self.name)
        kept = everything(groups, self.kind)
        run = dense_run(groups, self.kind)
        densities = round_densities(self.schedule, self.density, self.rounds, self.keep)
        for number, count in enumerate(kept_counts(kept.count, densities)):
            if number:
                start, first_step = self.start(groups, runs)
                run = Run(start, kept, trained_parameters(groups, self.kind), first_step)
            trained = runs.train(run)
            scores = rank_units(groups, self.kind, self.statistic, runs.base, trained)
            kept = keep_largest(scores, kept, count, self.scope)
            yield Level(trained, scores, kept)

    def start(
        self, groups: Sequence[UnitGroup], runs: Runs, density: float | None = None
    ) -> tuple[Checkpoint | None, int]:
        """What a ticket's own training begins with.

        Args:
            groups: the units.
            runs: the trainings.
            density: of the ticket; the same start for all of them here.

        Returns:
            checkpoint, or None for the base model; and the optimizer steps that it has behind it.
        """
        if not self.rewind:
            return None, 0
        return runs.train(dense_run(groups, self.kind, last_step=self.rewind)), self.rewind
