"""The loop that all learnt masks share: scores to a mask, a batch, what it says of the mask, a step of the scores."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from ks_lottery.errors import OptionError, UnitError
from ks_lottery.finders.base import UnitScores
from ks_lottery.finders.masks.frozen import Frozen
from ks_lottery.finders.masks.masked import MaskedModel
from ks_lottery.finders.saliency.batches import examples_in
from ks_lottery.finders.saliency.gradients import loss_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Optimizer = Literal["sgd", "adam"]
Objective = Callable[[int, Mapping[str, Any]], "Tensor"]
"""(number of the batch, batch) to a scalar with gradient, of the masked model as it is."""


class Parameterisation(Protocol):
    """How scores become a mask, and what a step does to them beside the optimizer."""

    def mask(self, scores: "Tensor") -> "Tensor":
        """[units] float32 mask of [units] float32 scores."""
        ...

    def backward(self, scores: "Tensor", gradient: "Tensor") -> "Tensor":
        """[units] derivative of the objective by the scores, from that by the mask, which may be overwritten."""
        ...

    def after_step(self, scores: "Tensor", step: int) -> None:
        """Change the scores in place after step number `step`, from 0: project them, take some out."""
        ...


@dataclass(frozen=True)
class Descent:
    """How scores are trained.

    Attributes:
        steps: optimizer steps, one batch each.
        learning_rate: at the start; it falls to 0 as half a cosine where `cosine`.
        optimizer: "sgd", with `momentum`, or "adam".
        weight_decay: of the scores.
        cosine: whether the rate falls; else it stays.

    Raises:
        OptionError: if a number is out of range.
    """

    steps: int
    learning_rate: float
    optimizer: Optimizer = "adam"
    momentum: float = 0.9
    weight_decay: float = 0.0
    cosine: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise OptionError(f"steps={self.steps}: a mask is learnt in at least 1 step.")
        if not 0.0 < self.learning_rate < math.inf:
            raise OptionError(f"learning_rate={self.learning_rate}: must be a number above 0.")
        if self.optimizer not in ("sgd", "adam"):
            raise OptionError(f"optimizer={self.optimizer!r}: must be sgd or adam.")

    def make(self, scores: "Tensor") -> "torch.optim.Optimizer":
        """The optimizer; its state is one or two numbers for each score, and nothing for the frozen weights."""
        import torch

        rate, decay = self.learning_rate, self.weight_decay
        if self.optimizer == "sgd":
            return torch.optim.SGD([scores], lr=rate, momentum=self.momentum, weight_decay=decay, fused=True)
        return torch.optim.Adam([scores], lr=rate, weight_decay=decay, fused=True)

    def rate(self, step: int) -> float:
        """Learning rate of a step, from 0."""
        return self.learning_rate * (0.5 * (1 + math.cos(math.pi * step / self.steps)) if self.cosine else 1.0)


def learn(
    model: MaskedModel,
    evidence: Frozen,
    scores: "Tensor",
    how: Parameterisation,
    objective: Objective,
    descent: Descent,
) -> "Tensor":
    """Train scores of units, so that the masked model does well on the batches.

    Args:
        model: the evidence's, under a mask.
        evidence: its batches are visited in order, again and again; its passes are counted.
        scores: [units] float32 on the model's device; trained in place.
        how: scores to masks.
        objective: what the mask is to make small.
        descent: optimizer, steps and rate.

    Returns:
        the scores.

    Raises:
        UnitError: if a score becomes NaN or infinite.

    Cost:
        Per step the objective, a backward pass, the optimizer on the scores, and a few passes over the touched weights.
    """
    scores.requires_grad_(True)
    optimizer = descent.make(scores)
    for step, (number, batch) in enumerate(islice(_endless(evidence), descent.steps)):
        for group in optimizer.param_groups:
            group["lr"] = descent.rate(step)
        values = scores.detach()
        model.write(how.mask(values))
        gradient = model.gradient(lambda number=number, batch=batch: objective(number, batch))  # type: ignore[misc]
        evidence.passes.count(backward=examples_in(batch))
        scores.grad = how.backward(values, gradient)
        optimizer.step()
        how.after_step(values, step)
        # The sum of all is read first: one pass that needs no memory.
        if not values.sum().isfinite() and not values.isfinite().all():
            raise UnitError(
                f"After step {step} the score of unit {int((~values.isfinite()).int().argmax())} is NaN or infinite. "
                f"Lower the learning rate ({descent.learning_rate:g})."
            )
    return scores.detach()


def task_loss(model: MaskedModel, evidence: Frozen) -> Objective:
    """The evidence's own loss of the masked model; errors as `loss_of`."""

    def objective(number: int, batch: Mapping[str, Any]) -> "Tensor":
        return loss_of(evidence, evidence.loss, model.wanted, number, batch)

    return objective


def mask_scores(
    model: MaskedModel, scores: "Tensor", mask: "Tensor", columns: "Mapping[str, Tensor] | None" = None
) -> Iterator[UnitScores]:
    """Scores of all groups: units of the learnt mask before all others, both by their score.

    A cut at the density of the mask is therefore the mask itself. Units of an update that did not move cannot be
    chosen.

    Args:
        model: whose units they are.
        scores: [units]; larger is better.
        mask: [units] bool; the learnt mask.
        columns: what else is known of the units, name to [units].

    Yields:
        one entry per group, with the columns `score` and `kept` and those given.
    """
    raw = scores.double().cpu().numpy()
    kept = mask.cpu().numpy()
    span = float(raw.max() - raw.min()) or 1.0
    # From 0 to 1 within either part; 2 apart, so that no rounding brings them together.
    placed = 2.0 * kept + (raw - raw.min()) / span
    further = {name: values.double().cpu().numpy() for name, values in (columns or {}).items()}
    everything = {"score": raw, "kept": kept.astype(np.float64), **further}
    movable, start = model.movable(), 0
    for group in model.groups:
        part = slice(start, start + group.num_units)
        start += group.num_units
        yield UnitScores(
            group,
            score=placed[part],
            changed=movable[part],
            columns={name: values[part] for name, values in everything.items()},
        )


def _endless(evidence: Frozen) -> Iterator[tuple[int, Mapping[str, Any]]]:
    numbers = range(len(evidence.batches))
    while True:
        yield from zip(numbers, evidence.moved(), strict=True)
