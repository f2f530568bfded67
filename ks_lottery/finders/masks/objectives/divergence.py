"""Kullback-Leibler divergence between what the masked and the dense model predict."""

from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from ks_lottery.finders.masks.objectives.answers import Answers
from ks_lottery.finders.masks.objectives.base import OBJECTIVES, View

if TYPE_CHECKING:
    from torch import Tensor


@OBJECTIVES.register("kl")
class ReverseDivergence:
    """100 * sum p_masked (log p_masked - log p_dense), mean over the outputs that count (`Answers`).

    Source:
        Arora & Teuscher 2025, arXiv 2512.07142: CTS-KL.
    """

    scale: ClassVar[float] = 100.0
    against_dense: ClassVar[bool] = True
    twice: ClassVar[bool] = False

    def __init__(self) -> None:
        self._answers = Answers()

    def dense(self, view: View) -> "tuple[Tensor, ...]":
        """[positions, classes] log probabilities."""
        import torch

        with torch.no_grad():
            return (self._log_probabilities(view),)

    def value(self, view: View, dense: "tuple[Tensor, ...]") -> "Tensor":
        """The divergence."""
        return divergence(self._log_probabilities(view), dense[0])

    def _log_probabilities(self, view: View) -> "Tensor":
        return self._answers.logits(view.outputs(), view.batch).log_softmax(-1)


@OBJECTIVES.register("forward_kl")
class ForwardDivergence(ReverseDivergence):
    """100 * sum p_dense (log p_dense - log p_masked), as `kl`."""

    @override
    def value(self, view: View, dense: "tuple[Tensor, ...]") -> "Tensor":
        """The divergence."""
        return divergence(dense[0], self._log_probabilities(view))


def divergence(log_p: "Tensor", log_q: "Tensor") -> "Tensor":
    """KL(p || q), mean over rows.

    Args:
        log_p: [rows, classes] float.
        log_q: the same of the other distribution.
    """
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean()
