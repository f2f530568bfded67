"""Learning-rate rewinding: as iterative magnitude pruning, but what is kept keeps its trained values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from ks_lottery.checkpoints.reader import Checkpoint
from ks_lottery.finders.base import FINDERS
from ks_lottery.finders.rounds.levels import Level, trained_parameters
from ks_lottery.finders.rounds.runs import Run, Runs
from ks_lottery.finders.rounds.shrinking import ShrinkingRounds
from ks_lottery.units.slab import UnitGroup


@FINDERS.register("lrr")
@dataclass(frozen=True)
class LearningRateRewinding(ShrinkingRounds):
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
        "Renda, Frankle, Carbin. Comparing Rewinding and Fine-tuning in Neural Network Pruning. ICLR 2020."
    )

    @override
    def next_run(self, groups: Sequence[UnitGroup], runs: Runs, level: Level) -> Run:
        return Run(level.trained, level.kept, trained_parameters(groups, self.kind))

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
