"""Head importance: how much the loss of an example depends on whether a head, or a neuron, is there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ks_lottery.errors import UnitError
from ks_lottery.finders.base import FINDERS, Evidence, UnitScores
from ks_lottery.finders.saliency.batches import Batches, examples_in
from ks_lottery.finders.saliency.gradients import loss_of, undisturbed
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.gates import Gates
from ks_lottery.units.slab import UnitGroup


@FINDERS.register("head_importance")
@dataclass(frozen=True)
class HeadImportance:
    """Score = mean over the examples of |dL/dgate|, for a gate of 1 that multiplies the output of a head or neuron.

    dL/dgate is the inner product of a head's output and its gradient, over all positions. Heads that share a key and a
    value (grouped-query attention) are one unit and have one gate. Granularities: heads, neurons.

    The loss of a batch is taken for the mean of its examples' losses, which it is where all have the same number of
    labels; else examples count by their labels. Columns: `score` and `mean_gradient`, the score before the l2
    normalisation of each layer.

    Source:
        Michel et al. 2019, arXiv 1905.10650, equation 2 and its layerwise l2 normalisation; of neurons: ours.
    """

    name: ClassVar[str] = "head_importance"
    citation: ClassVar[str] = "Michel et al. Are Sixteen Heads Really Better than One? NeurIPS 2019."
    kind: ClassVar[Kind] = "weight"
    needs: ClassVar[type[Evidence]] = Batches

    normalised: bool = field(
        default=True, metadata={"help": "Divide the scores of each layer by their Euclidean norm, as the paper does."}
    )

    def score(self, groups: Sequence[UnitGroup], evidence: Evidence) -> Iterator[UnitScores]:
        """Score every unit.

        Raises:
            DataError: if a batch has no loss.
            UnitError: if the units are no heads or neurons, or a loss or a gradient is NaN or infinite.

        Cost:
            One forward and one backward pass over the batches, without the gradients of weights.
        """
        assert isinstance(evidence, Batches)
        sums = _summed_gate_gradients(groups, evidence)
        examples = sum(map(examples_in, evidence.batches))
        for group in groups:
            mean = sums[group.name] / examples
            if not np.isfinite(mean).all():
                raise UnitError(
                    f"The gradient of the gate of unit {int(np.isfinite(mean).argmin())} of {group.name!r} is NaN or "
                    f"infinite, in front of {group.slabs[-1].parameter!r}. Load the model in float32, or take an "
                    "earlier checkpoint."
                )
            norm = float(np.linalg.norm(mean)) if self.normalised else 1.0
            score = mean / (norm or 1.0)
            changed = np.ones(group.num_units, dtype=bool)
            yield UnitScores(group, score=score, changed=changed, columns={"score": score, "mean_gradient": mean})


def _summed_gate_gradients(groups: Sequence[UnitGroup], evidence: Batches) -> dict[str, np.ndarray]:
    """Per group, [units] float64: sum over the examples of |gradient of the example's loss by its gate|."""
    import torch

    gates = Gates(evidence.model, groups)
    device = next(evidence.model.parameters()).device
    sums = {group.name: torch.zeros(group.num_units, dtype=torch.float64, device=device) for group in groups}
    with undisturbed(evidence.model):
        for number, batch in enumerate(evidence.moved()):
            examples = examples_in(batch)
            values = {
                group.name: torch.ones(examples, 1, group.num_units, device=device, requires_grad=True)
                for group in groups
            }
            with gates.installed(values):
                loss = loss_of(evidence, evidence.loss, values, number, batch)
                gradients = torch.autograd.grad(loss, list(values.values()), allow_unused=True)
            evidence.passes.count(backward=examples)
            for name, gradient in zip(values, gradients, strict=True):
                if gradient is not None:
                    sums[name] += examples * gradient[:, 0].double().abs().sum(dim=0)
    return {name: total.cpu().numpy() for name, total in sums.items()}
