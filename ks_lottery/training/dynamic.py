"""Tickets that move during training: at intervals the smallest weights leave, and as many others enter."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback
from typing_extensions import override

from ks_lottery.errors import OptionError
from ks_lottery.training.projection import Projection


class DynamicTicket(TrainerCallback):
    """Holds a ticket of single weights during any Trainer run, and exchanges a part of it every `every` steps.

    In each parameter f(t) * (selected weights), rounded down, leave and as many enter, so their number never changes;
    f(t) = fraction / 2 * (1 + cos(pi * t / until)). Those with the smallest |weight - rest| leave; subclasses say which
    enter. Just left, a weight may enter again, and then keeps its value and its optimizer state. Another one that
    enters starts at its rest value; its optimizer state, and that of one that left, is zero. Adam counts steps per
    parameter, so the first moves of a weight that entered are not corrected for its empty state.

    Args:
        kept: parameter name to bool mask of its shape, on the CPU; the ticket at the start (`ticket.masks()`).
        rest: parameter name to the values of weights outside the ticket; None: zero.
        every: optimizer steps between two exchanges.
        until: the last step at which one can happen.
        fraction: share of the selected weights that the first exchanges would replace, in [0, 1].

    Attributes:
        kept: the ticket as it is.

    Raises:
        OptionError: if an option is out of range; at the start of training as `Projection`, and if a run is resumed.

    Source:
        Evci et al. 2020 (RigL), arXiv 1911.11134; there every 100 steps with fraction .3. The exchange is exact, where
        the official code breaks ties by noise; equal weights leave from the last position on.
    """

    def __init__(
        self,
        kept: Mapping[str, torch.Tensor],
        rest: Mapping[str, torch.Tensor] | None = None,
        every: int = 100,
        until: int = 25_000,
        fraction: float = 0.3,
    ) -> None:
        if every < 1 or until < 1:
            raise OptionError(f"{type(self).__name__}(every={every}, until={until}): both are steps, at least 1.")
        if not 0.0 <= fraction <= 1.0:
            raise OptionError(f"{type(self).__name__}(fraction={fraction!r}): must lie in [0, 1].")
        self.kept = dict(kept)
        self.rest = rest
        self.every, self.until, self.fraction = every, until, fraction
        self._projection = Projection(self.kept, rest)

    def exchanges(self, step: int) -> dict[str, int]:
        """Parameter name to the number of weights that leave at an optimizer step, counted from 1; empty if none do."""
        if step % self.every or step > self.until:
            return {}
        share = self.fraction / 2 * (1 + math.cos(math.pi * step / self.until))
        counts = {name: int(share * int(mask.sum())) for name, mask in self.kept.items()}
        return {name: count for name, count in counts.items() if count}

    @override
    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step:
            raise OptionError(
                f"{type(self).__name__} cannot go on at step {state.global_step}: which weights were selected there is "
                "in no checkpoint. Train from the start."
            )
        self._projection.attach(model)

    @override
    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._projection.project()

    @override
    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._projection.detach()

    def _exchange(self, model: torch.nn.Module, optimizer: Any, step: int) -> None:
        parameters = dict(model.named_parameters())
        for name, count in self.exchanges(step).items():
            parameter, old = parameters[name], self.kept[name]
            stay = self._staying(name, parameter, count)
            order = torch.sort(self._wish(name, parameter, step).masked_fill(stay, -1.0), descending=True, stable=True)
            new = stay.clone()
            new[order.indices[:count]] = True
            self.kept[name] = new.view(old.shape).cpu()
            _clear_state(optimizer, parameter, (self.kept[name] != old).to(parameter.device))
        self._projection = Projection(self.kept, self.rest)
        self._projection.attach(model)

    @torch.no_grad()
    def _staying(self, name: str, parameter: torch.nn.Parameter, count: int) -> torch.Tensor:
        """[weights] bool: the ticket without the `count` smallest."""
        kept = self.kept[name].flatten().to(parameter.device)
        rest = 0.0 if self.rest is None else self.rest[name].to(parameter.device)
        sizes = (parameter - rest).abs().flatten().float().masked_fill(~kept, -1.0)
        largest = torch.sort(sizes, descending=True, stable=True).indices[: int(kept.sum()) - count]
        return torch.zeros_like(kept).index_fill_(0, largest, True)

    def _wish(self, name: str, parameter: torch.nn.Parameter, step: int) -> torch.Tensor:
        """[weights] float of 0 or more; the largest enter."""
        raise NotImplementedError


class RigL(DynamicTicket):
    """The weights with the largest |gradient| enter. The exchange takes the place of the optimizer's step.

    Arguments, errors and source: `DynamicTicket`. The gradient is that of all weights, over the whole batch of the step
    and after clipping, which changes no order. An unused parameter has none, which is an error.
    """

    @override
    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.exchanges(state.global_step + 1):
            self._projection.detach()  # lets the gradients of all weights through

    @override
    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **kwargs: Any
    ) -> None:
        if self.exchanges(state.global_step + 1):
            self._exchange(model, optimizer, state.global_step + 1)
            model.zero_grad(set_to_none=True)  # an optimizer passes over parameters without a gradient

    @override
    def _wish(self, name: str, parameter: torch.nn.Parameter, step: int) -> torch.Tensor:
        if parameter.grad is None:
            raise OptionError(
                f"RigL grows weights by their gradient, but {name!r} has none at step {step}. Take it out of the "
                "ticket, or make it part of the loss."
            )
        return parameter.grad.abs().flatten().float()


class SET(DynamicTicket):
    """Weights enter at random, after the optimizer's step.

    Args:
        seed: of the draws, which depend on it, the step and the parameter's name alone.

    Other arguments and errors: `DynamicTicket`.

    Source:
        Mocanu et al. 2018 (SET), Nature Communications, with the smallest weights leaving as in RigL's comparison.
    """

    def __init__(
        self,
        kept: Mapping[str, torch.Tensor],
        rest: Mapping[str, torch.Tensor] | None = None,
        every: int = 100,
        until: int = 25_000,
        fraction: float = 0.3,
        seed: int = 0,
    ) -> None:
        super().__init__(kept, rest, every, until, fraction)
        self.seed = seed

    @override
    def on_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **kwargs: Any
    ) -> None:
        self._projection.project()
        if self.exchanges(state.global_step + 1):
            self._exchange(model, optimizer, state.global_step + 1)

    @override
    def _wish(self, name: str, parameter: torch.nn.Parameter, step: int) -> torch.Tensor:
        key = int.from_bytes(hashlib.sha256(name.encode()).digest(), "big")
        draws = np.random.default_rng([self.seed, step, key]).random(parameter.numel())
        return torch.from_numpy(draws).to(parameter.device)


def _clear_state(optimizer: Any, parameter: torch.nn.Parameter, changed: torch.Tensor) -> None:
    """Zero the optimizer's values of some weights."""
    for value in optimizer.state.get(parameter, {}).values():
        if isinstance(value, torch.Tensor) and value.shape == parameter.shape and value.dim():
            value.masked_fill_(changed, 0)
