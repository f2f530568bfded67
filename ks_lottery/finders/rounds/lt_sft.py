"""LT-SFT: tune all, take the weights that moved farthest, go back, tune those, and again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

import numpy as np

from ks_lottery.errors import OptionError
from ks_lottery.finders.base import FINDERS, Evidence, UnitScores
from ks_lottery.finders.rounds.levels import rank_units, trained_parameters
from ks_lottery.finders.rounds.runs import Kept, Run, Runs
from ks_lottery.finders.select import largest
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup


@FINDERS.register("lt_sft")
@dataclass(frozen=True)
class LotteryTicketSparseFineTuning:
    """Rounds that add to the ticket: each tunes everything, takes the units that moved farthest, and tunes those alone.

    After a round all weights return to the round's start, and only the units taken so far are tuned; the next round
    begins with that. One round is the finder `magnitude` on a dense probe.

    Raises:
        OptionError: if an option is out of range.

    Source:
        Ansell et al. 2022 (LT-SFT), arXiv 2110.07560, section 3; the rounds are `n_ft_iterations` of its code.
    """

    name: ClassVar[str] = "lt_sft"
    citation: ClassVar[str] = "Ansell et al. Composable Sparse Fine-Tuning for Cross-Lingual Transfer. ACL 2022."
    kind: ClassVar[Kind] = "update"
    needs: ClassVar[type[Evidence]] = Runs

    density: float = field(default=0.01, metadata={"help": "Share of the units that is taken, over all rounds."})
    rounds: int = field(default=1, metadata={"help": "Number of rounds; each takes the same number of units."})
    statistic: str = field(
        default="magnitude", metadata={"help": "Finder of two checkpoints that says how far a unit moved."}
    )

    def __post_init__(self) -> None:
        if not 0.0 < self.density < 1.0:
            raise OptionError(f"Finder 'lt_sft', density={self.density}: must lie between 0 and 1.")
        if self.rounds < 1:
            raise OptionError(f"Finder 'lt_sft', rounds={self.rounds}: must be at least 1.")

    def score(self, groups: Sequence[UnitGroup], evidence: Evidence) -> Iterator[UnitScores]:
        """Score every unit: those of the first round first, in each round by how far they moved.

        Raises:
            OptionError: if there are fewer units than rounds.

        Cost:
            Two trainings per round, one for the last.
        """
        assert isinstance(evidence, Runs)
        counts = self._counts(sum(group.num_units for group in groups))
        trains = trained_parameters(groups, "update")
        taken = [np.zeros(group.num_units, dtype=bool) for group in groups]
        score = [np.zeros(group.num_units) for group in groups]
        start = None
        for number, count in enumerate(counts):
            dense = evidence.train(Run(start, None, trains))
            moved = rank_units(groups, "update", self.statistic, start or evidence.base, dense)
            chosen = largest([entry.score for entry in moved], [~mask for mask in taken], count)
            self._note(score, moved, taken, chosen, number)
            if number + 1 < len(counts):
                kept = Kept(tuple(groups), tuple(np.flatnonzero(mask) for mask in taken), "update")
                start = evidence.train(Run(start, kept, trains))
        for entry, values, mask in zip(moved, score, taken, strict=True):
            yield UnitScores(entry.group, score=values, changed=entry.changed | mask)

    def _counts(self, total: int) -> list[int]:
        """Units that each round takes; together round(density * total)."""
        wanted = max(1, round(self.density * total))
        if wanted < self.rounds:
            raise OptionError(
                f"Finder 'lt_sft' takes {wanted} of {total} units in {self.rounds} rounds, less than one a round. "
                "Raise the density, or take fewer rounds."
            )
        bounds = [round(wanted * number / self.rounds) for number in range(self.rounds + 1)]
        return [high - low for low, high in pairwise(bounds)]

    def _note(
        self,
        score: list[np.ndarray],
        moved: Sequence[UnitScores],
        taken: list[np.ndarray],
        chosen: Sequence[np.ndarray],
        number: int,
    ) -> None:
        """Write down this round's scores of all units that no earlier round took."""
        top = max(float(entry.score.max()) for entry in moved) or 1.0
        for values, entry, mask, units in zip(score, moved, taken, chosen, strict=True):
            open_units = ~mask
            values[open_units] = entry.score[open_units] * (1 - 2.0**-20) / top
            values[units] += self.rounds - number
            mask[units] = True
