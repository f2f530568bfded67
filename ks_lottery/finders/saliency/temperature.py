"""A model's loss with its logits divided by a temperature."""

from typing import TYPE_CHECKING

from ks_lottery.errors import DataError, OptionError
from ks_lottery.finders.saliency.batches import Batch

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_AGREES = 1e-2  # relative: a loss in bfloat16 is rounded to 4e-3


class TemperedLoss:
    """Mean cross entropy of logits / temperature, as a transformers model computes it at temperature 1.

    Which logits answer which labels (the same position, or the one before, as in causal language models) is found out
    with the first batch: at temperature 1 it has to give the model's own loss.

    Args:
        temperature: above 0.
    """

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature
        self._shift: int | None = None

    def __call__(self, model: "torch.nn.Module", batch: Batch) -> "Tensor":
        """Loss of one batch.

        Raises:
            DataError: if the batch has no labels.
            OptionError: if the model's loss is no cross entropy of its logits.
        """
        if batch.get("labels") is None:
            raise DataError(
                f"A temperature needs 'labels' in every batch, but a batch has {', '.join(batch)}. Add them, or use "
                "GraSP(temperature=None) with Batches(model, batches, loss)."
            )
        output = model(**batch)
        logits, labels = output.logits, batch["labels"]
        if not output.loss.isfinite():
            own: Tensor = output.loss
            return own
        if self._shift is None:
            self._shift = self._found_shift(type(model).__name__, logits.detach(), labels, output.loss.detach())
        return _cross_entropy(logits, labels, self._shift, self.temperature)

    @staticmethod
    def _found_shift(model: str, logits: "Tensor", labels: "Tensor", own: "Tensor") -> int:
        if logits.shape[:-1] == labels.shape and not labels.is_floating_point():
            shifts = range(min(logits.ndim - 1, 2))
            differences = [float(abs(_cross_entropy(logits, labels, shift, 1.0) - own)) for shift in shifts]
            if min(differences) <= _AGREES * float(abs(own)):
                return differences.index(min(differences))
        raise OptionError(
            f"The loss of {model} is no mean cross entropy of its logits of shape {tuple(logits.shape)} and labels of "
            f"shape {tuple(labels.shape)}, so no temperature can be put into it. Use GraSP(temperature=None)."
        )


def _cross_entropy(logits: "Tensor", labels: "Tensor", shift: int, temperature: float) -> "Tensor":
    """Mean over the labels that are not -100; label i + shift is predicted by logits i."""
    from torch.nn.functional import cross_entropy

    if shift:
        logits, labels = logits[..., :-shift, :], labels[..., shift:]
    return cross_entropy(logits.flatten(0, -2).float() / temperature, labels.flatten())
