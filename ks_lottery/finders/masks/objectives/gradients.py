"""Objectives of the loss's gradient: large, or like that of the dense model. Both differentiate it again."""

from typing import TYPE_CHECKING, ClassVar

from ks_lottery.errors import UnitError
from ks_lottery.finders.masks.objectives.base import OBJECTIVES, View
from ks_lottery.finders.saliency.gradients import widened

if TYPE_CHECKING:
    from torch import Tensor

_NO_SPREAD = 1e-12


@OBJECTIVES.register("gradnorm")
class GradientNorm:
    """Minus the root mean square of the loss's gradient by the touched weights as the mask leaves them.

    Source:
        Arora & Teuscher 2025, arXiv 2512.07142; what is kept flowing is that of GraSP.
    """

    scale: ClassVar[float] = 1.0
    against_dense: ClassVar[bool] = False
    twice: ClassVar[bool] = True

    def dense(self, view: View) -> "tuple[Tensor, ...]":
        """Nothing."""
        return ()

    def value(self, view: View, dense: "tuple[Tensor, ...]") -> "Tensor":
        """Minus the size of the gradient."""
        import torch

        gradients = list(_again(view).values())
        squares = torch.stack([widened(gradient).square().sum() for gradient in gradients]).sum()
        # At a gradient of zero, where the root has no derivative, nothing is to be gained.
        return -(squares / sum(map(torch.numel, gradients)) + _NO_SPREAD**2).sqrt()


@OBJECTIVES.register("gradmatch")
class GradientMatch:
    """100 * mean over the parameters of the squared distance between standardised gradients, masked and dense.

    Gradients are by the weights as the mask leaves them; standardised: less their mean, over their deviation.

    Source:
        Arora & Teuscher 2025, arXiv 2512.07142.
    """

    scale: ClassVar[float] = 100.0
    against_dense: ClassVar[bool] = True
    twice: ClassVar[bool] = True

    def __init__(self) -> None:
        self._names: list[str] = []

    def dense(self, view: View) -> "tuple[Tensor, ...]":
        """The standardised gradients, one for each parameter that has one."""
        found = {name: _standardised(value).detach() for name, value in view.gradients(twice=False).items()}
        self._names = list(found)
        return tuple(found.values())

    def value(self, view: View, dense: "tuple[Tensor, ...]") -> "Tensor":
        """The distance."""
        import torch

        gradients = _again(view)
        apart = [
            (_standardised(gradients[name]) - other).square().mean()
            for name, other in zip(self._names, dense, strict=True)
            if name in gradients
        ]
        return torch.stack(apart).mean()


def _again(view: View) -> "dict[str, Tensor]":
    """Gradients that can be differentiated.

    Raises:
        UnitError: if there is none.
    """
    gradients = view.gradients(twice=True)
    if not gradients:
        raise UnitError(
            f"No gradient of batch {view.number}'s loss depends on the weights of the units, so that a second one says "
            "nothing of them. Use objective='kl'."
        )
    return gradients


def _standardised(values: "Tensor") -> "Tensor":
    wide = widened(values)
    return (wide - wide.mean()) / (wide.var(correction=0) + _NO_SPREAD**2).sqrt()
