"""Iterative magnitude pruning: train, drop the smallest, rewind, repeat."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from typing_extensions import override

from ks_lottery.checkpoints.reader import Checkpoint
from ks_lottery.finders.base import FINDERS
from ks_lottery.finders.rounds.levels import Level, dense_run, require_rewind, trained_parameters
from ks_lottery.finders.rounds.runs import Run, Runs
from ks_lottery.finders.rounds.shrinking import ShrinkingRounds
from ks_lottery.units.slab import UnitGroup


@FINDERS.register("imp")
@dataclass(frozen=True)
class IterativeMagnitude(ShrinkingRounds):
    """Rounds of training; each drops the units with the smallest trained weights and rewinds the others.

    Of a weight ticket the size is |W| and what is dropped is zero; of an update ticket it is |W - base|, and what is
    dropped keeps its pretrained value. `Density` of any round's density gives exactly that round's ticket. Rewinding to
    step k takes the first k steps of a training beside.

    Raises:
        OptionError: if an option is out of range; when scoring, if no step is left after the rewind step.

    Source:
        Frankle & Carbin 2019, arXiv 1803.03635 (rewind 0); Frankle et al. 2020, arXiv 1912.05671 (rewind k). The
        weights of step k come from the dense run, as there.
    """

    name: ClassVar[str] = "imp"
    citation: ClassVar[str] = "Frankle & Carbin. The Lottery Ticket Hypothesis. ICLR 2019."

    rewind: int = field(default=0, metadata={"help": "Optimizer step to rewind to; 0: the pretrained weights."})

    @override
    def levels(self, groups: Sequence[UnitGroup], runs: Runs) -> Iterator[Level]:
        require_rewind(self.rewind, runs, self.name)
        yield from super().levels(groups, runs)

    @override
    def next_run(self, groups: Sequence[UnitGroup], runs: Runs, level: Level) -> Run:
        start, first_step = self.start(groups, runs)
        return Run(start, level.kept, trained_parameters(groups, self.kind), first_step)

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
