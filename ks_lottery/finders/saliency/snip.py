"""SNIP: how much the loss would feel if a weight were not there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ks_lottery.finders.base import FINDERS, Evidence, UnitScores
from ks_lottery.finders.saliency.batches import Batches
from ks_lottery.finders.saliency.gradients import summed_gradients, undisturbed
from ks_lottery.finders.saliency.reduction import unit_scores
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup, parameters_of


@FINDERS.register("snip")
@dataclass(frozen=True)
class Snip:
    """Score = sum of |g * w| over the weights of a unit, where g is the gradient of the mean loss over the batches.

    g * w is the gradient of a mask that multiplies the weight. The paper divides by the sum over all weights, which
    changes no order. Columns: `score`.

    Source:
        Lee et al. 2019 (SNIP), arXiv 1810.02340, one batch at initialisation; of layers: Jordao et al. 2023, arXiv
        2301.10835.
    """

    name: ClassVar[str] = "snip"
    citation: ClassVar[str] = "Lee et al. SNIP: Single-shot Network Pruning based on Connection Sensitivity. ICLR 2019."
    kind: ClassVar[Kind] = "weight"
    needs: ClassVar[type[Evidence]] = Batches

    def score(self, groups: Sequence[UnitGroup], evidence: Evidence) -> Iterator[UnitScores]:
        """Score every unit.

        Raises:
            DataError: if a batch has no loss.
            UnitError: if a loss or a score is NaN or infinite.

        Cost:
            One forward and one backward pass over the batches, and one number for each weight.
        """
        assert isinstance(evidence, Batches)
        with undisturbed(evidence.model, parameters_of(groups)) as wanted:
            values = summed_gradients(evidence, wanted)
            for name, gradient in values.items():
                gradient.mul_(wanted[name].detach()).mul_(1 / len(evidence.batches)).abs_()
        yield from unit_scores(groups, values, self.kind)
