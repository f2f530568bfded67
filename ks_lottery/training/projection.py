"""Weights outside a ticket stay where they belong, through any Trainer run."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import TrainerCallback

from ks_lottery.errors import OptionError


class Projection(TrainerCallback):
    """Holds some weights of a model fixed while the others train.

    Masking gradients is not freezing: weight decay moves masked weights. Here their gradient is zero, so that they
    count neither for the optimizer's state nor for the clipped norm, and after each optimizer step they are put back.

    Args:
        kept: parameter name to bool mask of its shape; False where a weight is held.
        rest: parameter name to the values that held weights have; None: zero.

    Raises:
        OptionError: at the start of training, if the model lacks a parameter or has it in another shape, or if it is
            sharded.

    Cost:
        Two passes over the masked parameters per optimizer step. Memory: a mask in each parameter's dtype, and the
        base values where `rest` is given.

    Source:
        Frankle & Carbin 2019, arXiv 1803.03635, section 1: m * theta in every forward pass.
    """

    def __init__(self, kept: Mapping[str, torch.Tensor], rest: Mapping[str, torch.Tensor] | None = None) -> None:
        self.kept = dict(kept)
        self.rest = None if rest is None else {name: rest[name] for name in self.kept}
        self._held: list[tuple[torch.nn.Parameter, torch.Tensor, torch.Tensor | None]] = []
        self._hooks: list[Any] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Put held weights in place and stop their gradients."""
        self.attach(model)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put held weights back."""
        self.project()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Let go of the model."""
        self.detach()

    def attach(self, model: torch.nn.Module) -> None:
        """Hold the weights of a model; errors as the class says."""
        self.detach()
        parameters = dict(model.named_parameters())
        for name, mask in self.kept.items():
            parameter = parameters.get(name)
            if parameter is None or parameter.shape != mask.shape:
                has = "has no such parameter" if parameter is None else f"has it in shape {tuple(parameter.shape)}"
                raise OptionError(
                    f"A mask of {name!r} has shape {tuple(mask.shape)}, but the model {has}. Masks belong to the base "
                    "model that the units were listed on; models sharded by FSDP or ZeRO-3 cannot be masked."
                )
            scale = mask.to(parameter.device, parameter.dtype)
            rest = None
            if self.rest is not None:
                rest = self.rest[name].to(parameter.device, parameter.dtype).masked_fill(mask.to(parameter.device), 0)
            self._held.append((parameter, scale, rest))
            if parameter.requires_grad:
                self._hooks.append(parameter.register_post_accumulate_grad_hook(_masked_by(scale)))
        self.project()

    @torch.no_grad()
    def project(self) -> None:
        """Put every held weight where it belongs."""
        for parameter, scale, rest in self._held:
            parameter.mul_(scale)
            if rest is not None:
                parameter.add_(rest)

    def detach(self) -> None:
        """Stop holding; the weights stay as they are."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._held.clear()


def _masked_by(scale: torch.Tensor) -> Any:
    def mask_gradient(parameter: torch.nn.Parameter) -> None:
        if parameter.grad is not None:
            parameter.grad.mul_(scale)

    return mask_gradient
