"""GraSP: the weights without which less gradient would flow."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ks_lottery.errors import OptionError
from ks_lottery.finders.base import FINDERS, Evidence, UnitScores
from ks_lottery.finders.saliency.batches import Batches, Loss, examples_in, own_loss
from ks_lottery.finders.saliency.gradients import Sums, handed_over, loss_of, undisturbed
from ks_lottery.finders.saliency.reduction import unit_scores
from ks_lottery.finders.saliency.temperature import TemperedLoss
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup, parameters_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Parameter

_LOG = logging.getLogger(__name__)
_TWICE_DIFFERENTIABLE = ("eager", "sdpa", None)


@FINDERS.register("grasp")
@dataclass(frozen=True)
class GraSP:
    """Score = sum of w * (H g) over the weights of a unit, with gradient g and Hessian H of the summed batch losses.

    The paper's score is its negative, s = -w * (H g), and removes the largest s; here, the largest score is chosen
    first. The gradient's norm falls most without the units that come first. Columns: `score`.

    Attention that torch computes (scaled_dot_product_attention) takes its plain kernel, which has second derivatives;
    any other is switched to the eager form meanwhile, with a notice in the log.

    Raises:
        OptionError: if the temperature is not positive.

    Source:
        Wang et al. 2020 (GraSP), arXiv 2002.07376, with T = 200 as in its code; `absolute`: Frankle et al. 2021,
        arXiv 2009.08576. Of layers: Jordao et al. 2023, arXiv 2301.10835.
    """

    name: ClassVar[str] = "grasp"
    citation: ClassVar[str] = (
        "Wang et al. Picking Winning Tickets Before Training by Preserving Gradient Flow. ICLR 2020."
    )
    kind: ClassVar[Kind] = "weight"
    needs: ClassVar[type[Evidence]] = Batches

    temperature: float | None = field(
        default=200.0,
        metadata={"help": "Logits are divided by it before the cross entropy; none: the loss of the batches as it is."},
    )
    absolute: bool = field(
        default=False, metadata={"help": "Sum |w * (H g)| instead: weights that change the gradient's norm either way."}
    )

    def __post_init__(self) -> None:
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise OptionError(
                f"GraSP(temperature={self.temperature!r}): must be positive, or None; the paper's is 200."
            )

    def score(self, groups: Sequence[UnitGroup], evidence: Evidence) -> Iterator[UnitScores]:
        """Score every unit.

        Raises:
            DataError: if a batch has no loss.
            OptionError: if the model's attention has no second derivative, or its loss takes no temperature.
            UnitError: if a loss or a score is NaN or infinite.

        Cost:
            Two forward and three backward passes over the batches, and two numbers for each weight.
        """
        assert isinstance(evidence, Batches)
        loss = self._loss(evidence)
        with second_derivatives(evidence.model), undisturbed(evidence.model, parameters_of(groups)) as wanted:
            values = _hessian_times_gradient(evidence, wanted, loss)
            for name, product in values.items():
                product.mul_(wanted[name].detach())
                if self.absolute:
                    product.abs_()
        yield from unit_scores(groups, values, self.kind)

    def _loss(self, evidence: Batches) -> Loss:
        if self.temperature is None:
            return evidence.loss
        if evidence.loss is not own_loss:
            raise OptionError(
                f"GraSP(temperature={self.temperature}) divides the logits of a transformers model, but Batches has a "
                "loss of its own. Use GraSP(temperature=None), and put a temperature into that loss."
            )
        return TemperedLoss(self.temperature)


@contextmanager
def second_derivatives(model: "torch.nn.Module") -> Iterator[None]:
    """Make the model's attention twice differentiable, for as long as the block lasts.

    Torch's own attention takes its plain kernel. A model with another one (flash, flex) is switched to the eager form,
    which is logged.

    Raises:
        OptionError: if the model cannot be switched.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    used = getattr(getattr(model, "config", None), "_attn_implementation", None)
    switched = used not in _TWICE_DIFFERENTIABLE
    if switched:
        _LOG.warning("Attention %r has no second derivative; eager attention takes its place meanwhile.", used)
        _switch(model, "eager")
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        if switched:
            config: Any = model.config
            config._attn_implementation = used


def _switch(model: "torch.nn.Module", attention: str) -> None:
    try:
        model.set_attn_implementation(attention)  # type: ignore[operator]
    except (AttributeError, ValueError, ImportError) as error:
        raise OptionError(
            f"The attention of {type(model).__name__} has no second derivative, and cannot be switched to {attention} "
            f"({error}). Load the model with attn_implementation=\"eager\", or use finder 'snip'."
        ) from error


def _hessian_times_gradient(evidence: Batches, wanted: "Mapping[str, Parameter]", loss: Loss) -> "dict[str, Tensor]":
    """H g of the summed losses, by differentiating sum(constant g * g)."""
    import torch

    first, second = Sums(wanted), Sums(wanted)
    for number, batch in enumerate(evidence.moved()):
        with handed_over(wanted, first.add):
            loss_of(evidence, loss, wanted, number, batch).backward()
        evidence.passes.count(backward=examples_in(batch))
    constant = first.tensors()
    for number, batch in enumerate(evidence.moved()):
        value = loss_of(evidence, loss, wanted, number, batch)
        gradients = torch.autograd.grad(value, list(wanted.values()), create_graph=True, allow_unused=True)
        parts = [
            (gradient * constant[name]).sum()
            for name, gradient in zip(wanted, gradients, strict=True)
            if gradient is not None and gradient.requires_grad
        ]
        if parts:
            with handed_over(wanted, second.add):
                torch.stack(parts).sum().backward()
        evidence.passes.count(backward=2 * examples_in(batch))
    return second.tensors()
