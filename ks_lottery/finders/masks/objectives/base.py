"""What an objective is, and what it sees of the masked model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ks_lottery.errors import DataError, UnitError
from ks_lottery.finders.masks.frozen import Frozen
from ks_lottery.finders.saliency.batches import examples_in
from ks_lottery.finders.saliency.gradients import loss_of
from ks_lottery.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class View:
    """A batch, and the model under the mask of the moment.

    Attributes:
        evidence: its passes are counted.
        wanted: parameters that the mask touches.
        number: of the batch.
        batch: on the model's device.
    """

    evidence: Frozen
    wanted: "Mapping[str, torch.nn.Parameter]"
    number: int
    batch: Mapping[str, Any]

    def loss(self) -> "Tensor":
        """The evidence's loss; errors as `loss_of`."""
        return loss_of(self.evidence, self.evidence.loss, self.wanted, self.number, self.batch)

    def outputs(self, **options: Any) -> Any:
        """What the model gives for the batch, with logits.

        Args:
            options: for the model's call, beside the batch.

        Raises:
            DataError: if the model does not take the batch, or gives no logits of two classes or more.
            UnitError: if a logit is NaN or infinite.
        """
        model = self.evidence.model
        way_out = "Use objective='loss' or 'deltaloss', which call the loss of the evidence alone."
        try:
            output = model(**self.batch, **options)
        except TypeError as error:
            raise DataError(
                f"{type(model).__name__} does not take the entries {', '.join(self.batch)} of batch {self.number} "
                f"({error}), so that its outputs cannot be compared. {way_out}"
            ) from error
        self.evidence.passes.count(forward=examples_in(self.batch))
        logits = getattr(output, "logits", None)
        if logits is None or logits.shape[-1] < 2:
            has = "no logits" if logits is None else f"logits of shape {tuple(logits.shape)}"
            raise DataError(
                f"{type(model).__name__} gives {has} for batch {self.number}, but distributions over two classes or "
                f"more are compared. {way_out}"
            )
        if not logits.isfinite().all():
            raise UnitError(
                f"A logit of batch {self.number} is NaN or infinite under the mask. Load the model in float32, or take "
                "an earlier checkpoint."
            )
        return output

    def gradients(self, *, twice: bool) -> "dict[str, Tensor]":
        """Gradient of the loss for each touched parameter that it depends on.

        Args:
            twice: whether they are to be differentiated again.
        """
        import torch

        value = self.loss()
        found = torch.autograd.grad(value, list(self.wanted.values()), create_graph=twice, allow_unused=True)
        self.evidence.passes.count(backward=examples_in(self.batch))
        return {
            name: gradient
            for name, gradient in zip(self.wanted, found, strict=True)
            if gradient is not None and (gradient.requires_grad or not twice)
        }


class Comparison(Protocol):
    """An objective; made anew for each search.

    Attributes:
        scale: factor of the value.
        against_dense: whether it reads something of the dense model.
        twice: whether it differentiates gradients.
    """

    scale: ClassVar[float]
    against_dense: ClassVar[bool]
    twice: ClassVar[bool]

    def dense(self, view: View) -> "tuple[Tensor, ...]":
        """What it reads of the dense model, which the view shows; without gradient."""
        ...

    def value(self, view: View, dense: "tuple[Tensor, ...]") -> "Tensor":
        """A scalar that can be differentiated by the touched parameters."""
        ...


OBJECTIVES: Registry[type[Comparison]] = Registry("objective", "ks_lottery.finders.masks.objectives")
