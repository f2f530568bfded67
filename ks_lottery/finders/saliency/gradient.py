"""Gradient norm: the units along which the loss falls fastest."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ks_lottery.finders.base import FINDERS, Evidence, UnitScores
from ks_lottery.finders.saliency.batches import Batches
from ks_lottery.finders.saliency.gradients import summed_gradients, undisturbed
from ks_lottery.finders.saliency.reduction import unit_scores
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup, parameters_of


@FINDERS.register("gradient")
@dataclass(frozen=True)
class Gradient:
    """Score = Euclidean norm, over the weights of a unit, of the gradient of the mean loss over the batches.

    Of a single weight this is |g|. A step of length eps along a unit's own gradient lowers the loss by eps times its
    score, to first order. Units of zero gradient cannot be chosen. Columns: `score`.

    Source:
        Zhang et al. 2024 (gradient-based parameter selection), arXiv 2312.10136, of single weights; the norm is ours.
    """

    name: ClassVar[str] = "gradient"
    citation: ClassVar[str] = "Zhang et al. Gradient-based Parameter Selection for Efficient Fine-Tuning. CVPR 2024."
    kind: ClassVar[Kind] = "update"
    needs: ClassVar[type[Evidence]] = Batches

    def score(self, groups: Sequence[UnitGroup], evidence: Evidence) -> Iterator[UnitScores]:
        """Score every unit; errors and cost as `Snip.score`."""
        assert isinstance(evidence, Batches)
        with undisturbed(evidence.model, parameters_of(groups)) as wanted:
            values = summed_gradients(evidence, wanted)
            for gradient in values.values():
                gradient.mul_(1 / len(evidence.batches))
        yield from unit_scores(groups, values, self.kind, how="norm")
