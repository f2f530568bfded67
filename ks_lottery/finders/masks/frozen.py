"""The evidence of this family: a model whose weights stay, batches to learn a mask on, and where tuning led."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Union

from typing_extensions import override

from ks_lottery.checkpoints.reader import Checkpoint, open_checkpoint
from ks_lottery.errors import UnitError
from ks_lottery.finders.saliency.batches import Batches

if TYPE_CHECKING:
    import torch

After = Union[str, os.PathLike[str], "torch.nn.Module", Checkpoint, None]


@dataclass(frozen=True)
class Frozen(Batches):
    """A frozen model and batches of its task.

    A mask is learnt over the model's weights, m * theta, for a weight ticket; over the move from the model to `after`,
    theta0 + m * (after - theta0), for an update ticket. The batches are visited in order, again and again.

        evidence = Frozen(model.requires_grad_(False), batches, after="tuned-model")

    Attributes:
        after: the same model after a training: live model, folder, Hub id or checkpoint; None where only weight tickets
            are asked for.

    Raises:
        DataError: as `Batches`.
        UnitError: if a parameter of the model requires gradients: what is not to train has to be frozen by its owner.
        CheckpointError, HubError: if `after` cannot be read.
    """

    described: ClassVar[str] = (
        "a mask over a frozen model, evidence=Frozen(model.requires_grad_(False), batches, after=...)"
    )

    after: After = None

    def __post_init__(self) -> None:
        super().__post_init__()
        trains = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
        if trains:
            raise UnitError(
                f"Frozen(model, batches): {len(trains)} parameters require gradients, {trains[0]!r} the first, but a "
                "mask is learnt over weights that stay as they are. Freeze them: model.requires_grad_(False)."
            )
        if self.after is not None:
            object.__setattr__(self, "after", open_checkpoint(self.after))

    @property
    def tuned(self) -> Checkpoint | None:
        """`after` as a checkpoint."""
        assert self.after is None or isinstance(self.after, Checkpoint)
        return self.after

    @override
    def details(self) -> dict[str, Any]:
        return {**super().details(), "after": None if self.tuned is None else self.tuned.name}
