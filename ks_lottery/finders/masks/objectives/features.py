"""Distance between what the layers of the masked and of the dense model compute."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from ks_lottery.finders.masks.objectives.answers import Answers
from ks_lottery.finders.masks.objectives.base import OBJECTIVES, View

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_STATES = ("hidden_states", "encoder_hidden_states", "decoder_hidden_states")
_SMALLEST_VARIANCE = 1e-12


@OBJECTIVES.register("feature")
class FeatureDistance:
    """100 * squared distance of standardised features and of the predicted probabilities, mean over the layers.

    Features of a transformers model are its hidden states, at the positions that count (`Answers`); of another model
    the outputs of its ReLU modules, or, without any, of every module that has weights of its own. Each position or
    example is standardised: less the mean over its features, over their deviation.

    Source:
        Arora & Teuscher 2025, arXiv 2512.07142: outputs of ReLUs and softmax of the head; hidden states are ours.
    """

    scale: ClassVar[float] = 100.0
    against_dense: ClassVar[bool] = True
    twice: ClassVar[bool] = False

    def __init__(self) -> None:
        self._answers = Answers()

    def dense(self, view: View) -> "tuple[Tensor, ...]":
        """[positions, features] of each layer, the probabilities last."""
        import torch

        with torch.no_grad():
            return tuple(self._layers(view))

    def value(self, view: View, dense: "tuple[Tensor, ...]") -> "Tensor":
        """The distance."""
        import torch

        apart = [(mine - other).square().mean() for mine, other in zip(self._layers(view), dense, strict=True)]
        return torch.stack(apart).mean()

    def _layers(self, view: View) -> "list[Tensor]":
        states, output = _states(view)
        where = self._answers.where(output, view.batch)
        features = [self._answers.pick(state, _inside(state, where, view.batch)).flatten(1) for state in states]
        return [*map(_standardised, features), self._answers.logits(output, view.batch).softmax(-1)]


def _inside(state: "Tensor", where: "Tensor | None", batch: Mapping[str, Any]) -> "Tensor | None":
    """Positions of a layer that count: those of the outputs, or else those of the attention mask."""
    for mask in (where, batch.get("attention_mask")):
        if mask is not None and state.ndim == 3 and mask.shape == state.shape[:2]:
            return mask.bool()
    return None


def _states(view: View) -> "tuple[list[Tensor], Any]":
    """What the layers compute, and the output."""
    takes = inspect.signature(view.evidence.model.forward).parameters.values()
    if any(one.name == "output_hidden_states" or one.kind is one.VAR_KEYWORD for one in takes):
        output = view.outputs(output_hidden_states=True)
        states = [state for name in _STATES for state in getattr(output, name, None) or ()]
        if states:
            return states, output
    with _outputs_of_modules(view.evidence.model) as states:
        return states, view.outputs()


@contextmanager
def _outputs_of_modules(model: "torch.nn.Module") -> "Iterator[list[Tensor]]":
    """Collects, inside the block, what the ReLU modules give, or else all modules with weights of their own."""
    import torch

    modules = list(model.modules())
    rectified: list[torch.nn.Module] = [module for module in modules if isinstance(module, torch.nn.ReLU)]
    tapped = rectified or [module for module in modules if list(module.parameters(recurse=False))]
    found: list[Tensor] = []

    def keep(module: Any, inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            found.append(output)

    handles = [module.register_forward_hook(keep) for module in tapped]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _standardised(values: "Tensor") -> "Tensor":
    spread = (values.var(-1, correction=0, keepdim=True) + _SMALLEST_VARIANCE).sqrt()
    return (values - values.mean(-1, keepdim=True)) / spread
