"""The BERT setting of iterative pruning: a tenth of the original weights per round, and the trained head stays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from ks_lottery.errors import OptionError
from ks_lottery.finders.base import FINDERS, Evidence, UnitScores
from ks_lottery.finders.rounds.levels import (
    Level,
    dense_run,
    everything,
    keep_largest,
    nested_scores,
    rank_units,
)
from ks_lottery.finders.rounds.runs import Run, Runs
from ks_lottery.finders.schedules import kept_counts
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup


@FINDERS.register("bert_rounds")
@dataclass(frozen=True)
class BertRounds:
    """Rounds that each drop 10 % of the original units; the body rewinds to the pretrained weights, the head does not.

    Every round has the whole learning-rate schedule; the authors' code gives each a tenth of one schedule.

    Raises:
        OptionError: if an option is out of range.

    Source:
        Chen et al. 2020, arXiv 2007.12223, section 3.
    """

    name: ClassVar[str] = "bert_rounds"
    citation: ClassVar[str] = "Chen et al. The Lottery Ticket Hypothesis for Pre-trained BERT Networks. NeurIPS 2020."
    kind: ClassVar[Kind] = "weight"
    needs: ClassVar[type[Evidence]] = Runs

    rounds: int = field(default=7, metadata={"help": "Number of rounds."})
    drop: float = field(default=0.1, metadata={"help": "Share of the original units that each round drops."})

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.drop <= 0.0 or self.rounds * self.drop >= 1.0:
            raise OptionError(
                f"Finder 'bert_rounds', rounds={self.rounds}, drop={self.drop}: the rounds would drop "
                f"{self.rounds * self.drop:.0%} of the units. Drop at least some, and less than all of them."
            )

    def score(self, groups: Sequence[UnitGroup], evidence: Evidence) -> Iterator[UnitScores]:
        """Score every unit by the round that dropped it.

        Cost:
            One training per round.
        """
        assert isinstance(evidence, Runs)
        yield from nested_scores(list(self.levels(groups, evidence)))

    def levels(self, groups: Sequence[UnitGroup], runs: Runs) -> Iterator[Level]:
        """The rounds, one after the other."""
        kept = everything(groups, "weight")
        run = dense_run(groups, "weight")
        for count in kept_counts(kept.count, [1 - self.drop * number for number in range(1, self.rounds + 1)]):
            trained = runs.train(run)
            scores = rank_units(groups, "weight", "", runs.base, trained)
            kept = keep_largest(scores, kept, count, "global")
            yield Level(trained, scores, kept)
            run = Run(None, kept, head=trained)
