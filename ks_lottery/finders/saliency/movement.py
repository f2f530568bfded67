"""Movement: units whose weights move away from zero, or from their start, while the batches are learnt."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ks_lottery.errors import OptionError
from ks_lottery.finders.base import FINDERS, Evidence, UnitScores
from ks_lottery.finders.saliency.batches import Batches
from ks_lottery.finders.saliency.gradients import Sums, undisturbed, visit_gradients
from ks_lottery.finders.saliency.reduction import unit_scores
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup, parameters_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter


@FINDERS.register("movement")
@dataclass(frozen=True)
class Movement:
    """Score = -sum of g * w over the batches and the weights of a unit; for update tickets -sum of g * (w - w0).

    Positive where descent makes the weight larger (moves it farther from its start w0). The batches are visited in
    order, each followed by a plain SGD step of the units' parameters; all weights are restored bit for bit at the end.
    With learning rate 0 the weights stand still, and the score is -g * w at the start. Of the first batch w - w0 is 0,
    so an update ticket needs two batches and a learning rate. Columns: `score`.

    Raises:
        OptionError: if the kind is unknown, the learning rate negative, or 0 for an update ticket.

    Source:
        Sanh et al. 2020 (movement pruning), arXiv 2005.07683, section 4: S = -alpha * sum of g * w; w - w0 is ours.
    """

    name: ClassVar[str] = "movement"
    citation: ClassVar[str] = "Sanh et al. Movement Pruning: Adaptive Sparsity by Fine-Tuning. NeurIPS 2020."
    needs: ClassVar[type[Evidence]] = Batches

    kind: Kind = field(
        default="weight", metadata={"help": "weight: away from zero; update: away from where the weights started."}
    )
    learning_rate: float = field(
        default=0.0, metadata={"help": "Length of the SGD step after each batch; 0: the weights stand still."}
    )

    def __post_init__(self) -> None:
        if self.kind not in ("weight", "update"):
            raise OptionError(f"Movement(kind={self.kind!r}): must be weight or update.")
        if not 0 <= self.learning_rate < float("inf"):
            raise OptionError(f"Movement(learning_rate={self.learning_rate!r}): must be 0 or a positive number.")
        if self.kind == "update" and not self.learning_rate:
            raise OptionError(
                "Movement(kind='update', learning_rate=0): nothing moves, so every score would be 0. Give a learning "
                "rate, such as 1e-3."
            )

    def score(self, groups: Sequence[UnitGroup], evidence: Evidence) -> Iterator[UnitScores]:
        """Score every unit; errors as `Snip.score`.

        Cost:
            One forward and one backward pass over the batches, one number for each weight, and a copy of the units'
            parameters if the learning rate is not 0.
        """
        assert isinstance(evidence, Batches)
        with undisturbed(evidence.model, parameters_of(groups)) as wanted, self._restored(wanted) as start:
            sums = Sums(wanted)

            def visit(name: str, gradient: "Tensor") -> None:
                weight = wanted[name].detach()
                moved = weight - start[name] if self.kind == "update" else weight
                sums.add_product(name, gradient, moved, factor=-1.0)
                if self.learning_rate:
                    weight.add_(gradient, alpha=-self.learning_rate)

            visit_gradients(evidence, wanted, visit)
        yield from unit_scores(groups, sums.tensors(), self.kind)

    @contextmanager
    def _restored(self, wanted: "Mapping[str, Parameter]") -> "Iterator[dict[str, Tensor]]":
        """Copies of the weights that are going to move; they are put back at the end."""
        start = {name: weight.detach().clone() for name, weight in wanted.items()} if self.learning_rate else {}
        try:
            yield start
        finally:
            for name, values in start.items():
                wanted[name].detach().copy_(values)
