"""Fisher: the units that the loss is most sensitive to, batch by batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ks_lottery.finders.base import FINDERS, Evidence, UnitScores
from ks_lottery.finders.saliency.batches import Batches
from ks_lottery.finders.saliency.gradients import Sums, undisturbed, visit_gradients
from ks_lottery.finders.saliency.reduction import unit_scores
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup, parameters_of

if TYPE_CHECKING:
    from torch import Tensor


@FINDERS.register("fisher")
@dataclass(frozen=True)
class Fisher:
    """Score = sum over the batches, and over the weights of a unit, of the squared gradient of the batch's mean loss.

    With batches of one example this is the diagonal of the empirical Fisher information, times the number of examples.
    In larger batches gradients of single examples cancel before they are squared. Units of zero gradient cannot be
    chosen. Columns: `score`.

    Source:
        Sung et al. 2021 (FISH Mask), arXiv 2111.09839, section 3: the empirical Fisher of single weights.
    """

    name: ClassVar[str] = "fisher"
    citation: ClassVar[str] = "Sung et al. Training Neural Networks with Fixed Sparse Masks. NeurIPS 2021."
    kind: ClassVar[Kind] = "update"
    needs: ClassVar[type[Evidence]] = Batches

    def score(self, groups: Sequence[UnitGroup], evidence: Evidence) -> Iterator[UnitScores]:
        """Score every unit; errors and cost as `Snip.score`."""
        assert isinstance(evidence, Batches)
        with undisturbed(evidence.model, parameters_of(groups)) as wanted:
            sums = Sums(wanted)

            def visit(name: str, gradient: "Tensor") -> None:
                sums.add_product(name, gradient, gradient)

            visit_gradients(evidence, wanted, visit)
        yield from unit_scores(groups, sums.tensors(), self.kind)
