"""The evidence of this family: a live model and some batches of its task."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from typing_extensions import override

from ks_lottery.errors import DataError
from ks_lottery.finders.base import Evidence
from ks_lottery.finders.passes import Passes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Batch = Mapping[str, Any]
Loss = Callable[["torch.nn.Module", Batch], "Tensor"]


def own_loss(model: "torch.nn.Module", batch: Batch) -> "Tensor":
    """The loss that a transformers model computes from its labels: `model(**batch).loss`.

    Raises:
        DataError: if it computes none.
    """
    loss: Tensor | None = getattr(model(**batch), "loss", None)
    if loss is None:
        raise DataError(
            f"{type(model).__name__} computes no loss from a batch of {', '.join(batch)}. Put 'labels' into every "
            "batch, or give Batches a loss(model, batch)."
        )
    return loss


@dataclass(frozen=True)
class Batches(Evidence):
    """A model and batches of its task.

    Attributes:
        model: on any devices; it is as before after every finder.
        batches: mappings of tensors whose first dimension counts examples, as a collator makes them, on any device.
        loss: (model, batch) to the mean loss of the batch, a scalar with gradient; the model's own by default.
        passes: what finders spent on this evidence.

    Raises:
        DataError: if there is no batch, or one is empty.
    """

    described: ClassVar[str] = "a model and batches of its task, evidence=Batches(model, batches)"

    model: "torch.nn.Module"
    batches: Sequence[Batch]
    loss: Loss = own_loss
    passes: Passes = field(default_factory=Passes, compare=False)

    def __post_init__(self) -> None:
        if not len(self.batches):
            raise DataError("Batches(model, batches): there is no batch. Give at least one; batches_of draws them.")
        for number, batch in enumerate(self.batches):
            if not examples_in(batch):
                raise DataError(
                    f"Batches(model, batches): batch {number} holds no example. Leave it out, or check the collator."
                )

    @override
    def details(self) -> dict[str, Any]:
        config = getattr(self.model, "config", None)
        return {
            "model": str(getattr(config, "name_or_path", "") or type(self.model).__name__),
            "batches": len(self.batches),
            "examples": sum(map(examples_in, self.batches)),
        }

    def moved(self) -> Iterator[dict[str, Any]]:
        """The batches, one after the other, on the device of the model's first parameter."""
        device = next(self.model.parameters()).device
        for batch in self.batches:
            yield {name: value.to(device) if hasattr(value, "to") else value for name, value in batch.items()}


def examples_in(batch: Batch) -> int:
    """Number of examples in a batch: the size of the first dimension of its first tensor; 0 without a tensor."""
    return next((len(value) for value in batch.values() if getattr(value, "ndim", 0) > 0), 0)


def batches_of(
    dataset: Any,
    collator: Callable[[list[Any]], Batch],
    batch_size: int = 8,
    count: int = 8,
    seed: int = 0,
) -> list[Batch]:
    """Draw full batches from a data set, each example at most once.

    Args:
        dataset: with a length, and examples by number.
        collator: list of examples to a batch.
        batch_size: examples per batch.
        count: number of batches.
        seed: the same seed draws the same examples.

    Raises:
        DataError: if a number is below 1, or the data set has fewer than `count` full batches.
    """
    if batch_size < 1 or count < 1:
        raise DataError(f"batches_of(batch_size={batch_size}, count={count}): both must be at least 1.")
    full = len(dataset) // batch_size
    if full < count:
        way_out = f"Ask for at most {full} batches" if full else f"Use a batch size of at most {len(dataset)}"
        raise DataError(
            f"{count} batches of {batch_size} examples are asked for, but a data set of {len(dataset)} examples has "
            f"{full} of them. {way_out}, or give more examples."
        )
    drawn = np.random.default_rng(seed).permutation(len(dataset))[: count * batch_size].reshape(count, batch_size)
    return [collator([dataset[int(number)] for number in numbers]) for numbers in drawn]
