"""The task's loss under the mask, as it is and against that of the dense model."""

from typing import TYPE_CHECKING, ClassVar

from ks_lottery.errors import DataError
from ks_lottery.finders.masks.objectives.base import OBJECTIVES, View

if TYPE_CHECKING:
    from torch import Tensor


@OBJECTIVES.register("loss")
class TaskLoss:
    """100 * the loss of the evidence.

    Source:
        Arora & Teuscher 2025, arXiv 2512.07142.
    """

    scale: ClassVar[float] = 100.0
    against_dense: ClassVar[bool] = False
    twice: ClassVar[bool] = False

    def dense(self, view: View) -> "tuple[Tensor, ...]":
        """Nothing."""
        return ()

    def value(self, view: View, dense: "tuple[Tensor, ...]") -> "Tensor":
        """The loss."""
        return view.loss()


@OBJECTIVES.register("deltaloss")
class LossRatio:
    """10,000 * |loss under the mask / loss of the dense model - 1|: neither worse nor better than that.

    Raises:
        DataError: if the dense model's loss on a batch is 0.

    Source:
        Arora & Teuscher 2025, arXiv 2512.07142.
    """

    scale: ClassVar[float] = 1e4
    against_dense: ClassVar[bool] = True
    twice: ClassVar[bool] = False

    def dense(self, view: View) -> "tuple[Tensor, ...]":
        """The loss of the dense model."""
        value = view.loss().detach()
        if value == 0:
            raise DataError(
                f"The dense model's loss on batch {view.number} is 0, and objective 'deltaloss' divides by it. Use "
                "objective='kl', or batches that the model has not learnt by heart."
            )
        return (value,)

    def value(self, view: View, dense: "tuple[Tensor, ...]") -> "Tensor":
        """The distance of the ratio from 1."""
        return (view.loss() / dense[0] - 1).abs()
