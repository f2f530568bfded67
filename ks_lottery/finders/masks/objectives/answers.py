"""Which outputs of a model count: those that answer a label."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ks_lottery.finders.saliency.gradients import widened

if TYPE_CHECKING:
    from torch import Tensor

_NO_LABEL = -100


class Answers:
    """Picks the positions at which outputs are compared.

    Of models with an output for each token: those whose label is not -100, so that neither prompts nor padding count;
    without labels of tokens those that the attention mask counts. Whether position i answers label i or i + 1 (causal
    language models) is found out with the first batch, by the model's own loss. Of other models everything counts.
    """

    def __init__(self) -> None:
        self._shift: int | None = None

    def where(self, output: Any, batch: Mapping[str, Any]) -> "Tensor | None":
        """Positions that count.

        Args:
            output: of the model, with logits and, where there are labels, the loss.
            batch: its inputs.

        Returns:
            [examples, tokens] bool; None where all outputs count.
        """
        import torch

        logits = output.logits
        if logits.ndim != 3:
            return None
        labels, mask = batch.get("labels"), batch.get("attention_mask")
        if labels is not None and labels.shape == logits.shape[:2] and not labels.is_floating_point():
            if self._shift is None:
                self._shift = _found_shift(logits.detach(), labels, getattr(output, "loss", None))
            counts = torch.zeros_like(labels, dtype=torch.bool)
            counts[:, : labels.shape[1] - self._shift] = labels[:, self._shift :] != _NO_LABEL
            return counts
        if mask is not None and mask.shape == logits.shape[:2]:
            return torch.as_tensor(mask).bool()
        return None

    def pick(self, values: "Tensor", where: "Tensor | None") -> "Tensor":
        """[positions, ...] of [examples, tokens, ...], [examples, ...] of other models; float32 at least."""
        return widened(values if where is None else values[where])

    def logits(self, output: Any, batch: Mapping[str, Any]) -> "Tensor":
        """[positions, classes], float32 at least."""
        picked = self.pick(output.logits, self.where(output, batch))
        return picked.flatten(0, -2)


def _found_shift(logits: "Tensor", labels: "Tensor", own: "Tensor | None") -> int:
    """0 or 1: with which of the two the mean cross entropy is nearer to the model's own loss."""
    from torch.nn.functional import cross_entropy

    if own is None or labels.shape[1] < 2:
        return 0
    apart = []
    for shift in (0, 1):
        answering, answers = logits[:, : labels.shape[1] - shift], labels[:, shift:]
        value = cross_entropy(answering.flatten(0, 1).float(), answers.flatten(), ignore_index=_NO_LABEL)
        apart.append(float(abs(value - own.detach())))
    return int(apart[1] < apart[0])
