"""Bernoulli supermasks: a probability for every unit, a mask drawn from it in each step."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ks_lottery.errors import OptionError
from ks_lottery.finders.base import FINDERS, Evidence, UnitScores
from ks_lottery.finders.masks.counted_draws import CountedDraws
from ks_lottery.finders.masks.edge_popup import require_mask_options
from ks_lottery.finders.masks.frozen import Frozen
from ks_lottery.finders.masks.kept import KeptUnits
from ks_lottery.finders.masks.learning import Descent, Optimizer, learn, mask_scores, task_loss
from ks_lottery.finders.masks.masked import masked
from ks_lottery.finders.select import Scope
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup

if TYPE_CHECKING:
    from torch import Tensor


class Bernoulli:
    """Mask ~ Bernoulli(sigmoid(logit)), drawn anew in each step; its gradient is taken for that of the probability.

    Args:
        sizes: units of each group.
        draws: uniform numbers, one per unit and step.
        rescale: multiply each group's mask by units / ones, so that the group keeps its scale at every density.

    Source:
        Zhou et al. 2019, arXiv 1905.01067, section 5; units / ones is how we read its dynamic weight rescaling.
    """

    def __init__(self, sizes: Sequence[int], draws: CountedDraws, rescale: bool = False) -> None:
        self._sizes, self._draws, self._rescale = list(sizes), draws, rescale
        self._step = 0
        self._probability: Tensor | None = None
        self._multipliers: list[float] = []

    def mask(self, scores: "Tensor") -> "Tensor":
        """[units] float32: 0, and 1 or the multiplier of the group."""
        self._probability = scores.sigmoid()
        drawn = self._draws.at(self._step).lt_(self._probability)
        if self._rescale:
            parts = drawn.split(self._sizes)
            self._multipliers = multipliers(parts)
            for part, multiplier in zip(parts, self._multipliers, strict=True):
                part.mul_(multiplier)
        return drawn

    def backward(self, scores: "Tensor", gradient: "Tensor") -> "Tensor":
        """The gradient times the slope of the sigmoid, and times the multipliers, which count as constants."""
        import torch

        if self._rescale:
            for part, multiplier in zip(gradient.split(self._sizes), self._multipliers, strict=True):
                part.mul_(multiplier)
        slope: Tensor = torch.ops.aten.sigmoid_backward(gradient, self._probability)
        return slope

    def after_step(self, scores: "Tensor", step: int) -> None:
        """Go on to the draws of the next step."""
        self._step = step + 1


def multipliers(masks: "Sequence[Tensor]") -> list[float]:
    """Units over ones of each group's 0/1 mask; 1 where a group has no ones."""
    return [len(mask) / max(1.0, float(mask.sum())) if mask.any() else 1.0 for mask in masks]


@FINDERS.register("supermask")
@dataclass(frozen=True)
class Supermask:
    """Score = the logit of the probability with which a unit is in the mask, trained while masks were drawn from it.

    Each forward pass draws a mask, Bernoulli(sigmoid(logit)) for every unit; each backward pass takes the gradient of
    the mask for that of the probability. Weights are never trained. The draws depend on seed, step and unit alone, and
    are the same on every device.

    Nothing in this method controls how many units it keeps. So every probability begins at the density, and at the end
    the ticket is cut at exactly the density, by the logit; the mean of the column `probability` tells what density the
    training went for. Where it is far from the one asked for, the cut is none of the masks that were trained.

    With `rescale` every drawn mask is multiplied by units / ones of its group. The ticket then needs the same: the
    factors stand in the column `multiplier`, and 1 without it. A network of ReLUs without biases gives the same classes
    without them.

    Columns: `score` (the logit), `kept`, `probability`, `multiplier`.

    Raises:
        OptionError: if an option is out of range.

    Source:
        Zhou et al. 2019, arXiv 1905.01067, section 5. Beginning at the density, the exact cut, units of several
        weights, and masks over updates: ours.
    """

    name: ClassVar[str] = "supermask"
    citation: ClassVar[str] = (
        "Zhou et al. Deconstructing Lottery Tickets: Zeros, Signs, and the Supermask. NeurIPS 2019."
    )
    needs: ClassVar[type[Evidence]] = Frozen
    learns_density: ClassVar[bool] = True

    kind: Kind = field(
        default="weight", metadata={"help": "weight: the rest is zero; update: the rest stays as it was."}
    )
    density: float = field(
        default=0.5, metadata={"help": "Probability that every unit begins with, and share that the final cut keeps."}
    )
    scope: Scope = field(
        default="global",
        metadata={"help": "Of the cut. global: all units compete; group: each group keeps this share."},
    )
    steps: int = field(default=400, metadata={"help": "Optimizer steps, one batch and one drawn mask each."})
    rescale: bool = field(default=False, metadata={"help": "Multiply each group's masks by units / ones."})
    learning_rate: float = field(default=0.3, metadata={"help": "Of the logits, at the start; falls as a cosine."})
    optimizer: Optimizer = field(default="adam", metadata={"help": "adam, or sgd with momentum .9."})
    seed: int = field(default=0, metadata={"help": "Of the drawn masks."})

    def __post_init__(self) -> None:
        require_mask_options(self.name, self.kind, self.density, self.scope)
        if self.seed < 0:
            raise OptionError(f"Finder 'supermask', seed={self.seed}: must be 0 or more.")
        self._descent()

    def score(self, groups: Sequence[UnitGroup], evidence: Evidence) -> Iterator[UnitScores]:
        """Score every unit.

        Raises:
            UnitError: if a weight, a loss or a score is NaN or infinite.
            OptionError: if an update ticket is asked for without `after`, or the density keeps none or all units.

        Cost:
            `steps` forward and backward passes; beside the masked model six numbers for each unit.
        """
        import torch

        assert isinstance(evidence, Frozen)
        with masked(evidence, groups, self.kind) as model:
            cut = KeptUnits(model.sizes, self.density, self.scope)
            how = Bernoulli(model.sizes, CountedDraws(model.num_units, self.seed, model.device), self.rescale)
            first = math.log(self.density / (1 - self.density))
            logits = torch.full((model.num_units,), first, device=model.device)
            scores = learn(model, evidence, logits, how, task_loss(model, evidence), self._descent())
            kept = cut(scores)
            factors = multipliers(model.split(kept)) if self.rescale else [1.0] * len(model.sizes)
            multiplier = torch.cat(
                [torch.full((size,), factor) for size, factor in zip(model.sizes, factors, strict=True)]
            )
            columns = {"probability": scores.sigmoid(), "multiplier": multiplier}
            entries = list(mask_scores(model, scores, kept, columns))
        yield from entries

    def _descent(self) -> Descent:
        return Descent(self.steps, self.learning_rate, self.optimizer)
