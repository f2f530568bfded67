"""An objective for the loop that learns masks, with what it reads of the dense model."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from ks_lottery.finders.masks.frozen import Frozen
from ks_lottery.finders.masks.learning import Objective
from ks_lottery.finders.masks.masked import MaskedModel
from ks_lottery.finders.masks.objectives.base import OBJECTIVES, Comparison, View
from ks_lottery.finders.saliency.grasp import second_derivatives

if TYPE_CHECKING:
    from torch import Tensor

DENSE_BYTES = 2**28
"""What is read of the dense model is kept up to so many bytes; beyond that it is computed again at each visit."""


@contextmanager
def objective_of(
    name: str, model: MaskedModel, evidence: Frozen, current: "Callable[[], Tensor]", limit: int = DENSE_BYTES
) -> Iterator[Objective]:
    """Make an objective usable, for as long as the block lasts.

    The dense model is the one under a mask of ones: m = 1 of m * theta, or of theta0 + m * (after - theta0).

    Args:
        name: of the objective.
        model: under its mask.
        evidence: whose batches are visited.
        current: the mask that the model is under.
        limit: bytes that are kept of the dense model.

    Raises:
        UnknownNameError: if there is no such objective.
        OptionError: if it needs second derivatives, and the model's attention has none.
    """
    comparison = OBJECTIVES.get(name)()
    with second_derivatives(evidence.model) if comparison.twice else nullcontext():
        yield _AgainstDense(comparison, model, evidence, current, limit)


class _AgainstDense:
    """Values of an objective; reads the dense model at the first visit of each batch."""

    def __init__(
        self, comparison: Comparison, model: MaskedModel, evidence: Frozen, current: "Callable[[], Tensor]", limit: int
    ) -> None:
        self._comparison, self._model, self._evidence = comparison, model, evidence
        self._current, self._left = current, limit
        self._kept: dict[int, tuple[Tensor, ...]] = {}

    def __call__(self, number: int, batch: Mapping[str, Any]) -> "Tensor":
        view = View(self._evidence, self._model.wanted, number, batch)
        dense = self._dense(view) if self._comparison.against_dense else ()
        return self._comparison.scale * self._comparison.value(view, dense)

    def _dense(self, view: View) -> "tuple[Tensor, ...]":
        import torch

        if view.number in self._kept:
            return self._kept[view.number]
        mask = self._current()
        self._model.write(torch.ones_like(mask))
        found = self._comparison.dense(view)
        self._model.write(mask)
        size = sum(part.numel() * part.element_size() for part in found)
        if size <= self._left:
            self._left -= size
            self._kept[view.number] = found
        return found
