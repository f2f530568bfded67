"""Learning-rate rewinding: as iterative magnitude pruning, but what is kept keeps its trained values."""

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
    trained_parameters,
)
from ks_lottery.finders.rounds.runs import Run, Runs
from ks_lottery.finders.schedules import Schedule, kept_counts, round_densities
from ks_lottery.finders.select import Scope
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup


@FINDERS.register("lrr")
@dataclass(frozen=True)
class LearningRateRewinding:
    """Rounds in which survivors keep their trained values, and the learning rate begins anew.

    The optimizer is a new one in each round. What is dropped goes to zero (weight ticket), or back to its pretrained
    value (update ticket). No values of an earlier step are needed.

    Raises:
        OptionError: if an option is out of range.

    Source:
        Renda, Frankle, Carbin 2020, arXiv 2003.02389, section 3.
    """

    name: ClassVar[str] = "lrr"
    citation: ClassVar[str] = (
        "Renda, Frankle, Carbin. Comparing Rewinding and Fine-tuning in Neural Network Pruning. 2020."
    )
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
            One training per round.
        """
        assert isinstance(evidence, Runs)
        yield from nested_scores(list(self.levels(groups, evidence)))

    def levels(self, groups: Sequence[UnitGroup], runs: Runs) -> Iterator[Level]:
        """The rounds, one after the other."""
        kept = everything(groups, self.kind)
        run = dense_run(groups, self.kind)
        densities = round_densities(self.schedule, self.density, self.rounds, self.keep)
        for count in kept_counts(kept.count, densities):
            trained = runs.train(run)
            scores = rank_units(groups, self.kind, self.statistic, runs.base, trained)
            kept = keep_largest(scores, kept, count, self.scope)
            yield Level(trained, scores, kept)
            run = Run(trained, kept, trained_parameters(groups, self.kind))

    def start(
        self, groups: Sequence[UnitGroup], runs: Runs, density: float | None = None
    ) -> tuple[Checkpoint | None, int]:
        """What a ticket's own training begins with: the weights of the round that found it.

        Args:
            groups: the units.
            runs: the trainings.
            density: of the ticket; None: the last round's. A ticket between two rounds begins with the later one's.

        Returns:
            checkpoint, and 0: the schedule begins anew.
        """
        total = sum(group.num_units for group in groups)
        for level in self.levels(groups, runs):
            if density is not None and level.kept.count <= round(density * total):
                break
        return level.trained, 0
