"""Gem-Miner: a number from 0 to 1 for every unit, a mask of those above one half, and units that are out for good."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ks_lottery.errors import OptionError
from ks_lottery.finders.base import FINDERS, Evidence, UnitScores
from ks_lottery.finders.masks.edge_popup import require_mask_options
from ks_lottery.finders.masks.frozen import Frozen
from ks_lottery.finders.masks.kept import KeptUnits, LargestMask
from ks_lottery.finders.masks.learning import Descent, Optimizer, learn, mask_scores, task_loss
from ks_lottery.finders.masks.masked import masked
from ks_lottery.finders.schedules import round_densities
from ks_lottery.finders.select import Scope
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_DROPS = 30  # in a search, where `every` is not given: the paper's 150 epochs with a drop every 5


class Survivors:
    """Mask = 1 for units that are alive with p > 1/2; gradients pass straight through; the lowest p drop out for good.

    Args:
        sizes: units of each group.
        densities: alive after each drop, over `scope`; falling.
        scope: "global": all units compete; "group": those of each group.
        every: steps between drops.
        penalty: lambda of lambda * ||p||^2.
        device: of the scores.

    Attributes:
        alive: [units] bool.
        dropped: [units] int16, the number of the drop that took the unit out, from 1; 0 while it is alive.
        last: [units] float32, p of the units that are out, at their drop.

    Source:
        Sreenivasan et al. 2022, algorithm 1.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        densities: Sequence[float],
        scope: Scope,
        every: int,
        penalty: float,
        device: "torch.device | str" = "cpu",
    ) -> None:
        import torch

        self._sizes = [sum(sizes)] if scope == "global" else list(sizes)
        self._densities, self._every, self._penalty = tuple(densities), every, penalty
        self.alive = torch.ones(sum(sizes), dtype=torch.bool, device=device)
        self.dropped = torch.zeros(sum(sizes), dtype=torch.int16, device=device)
        self.last = torch.zeros(sum(sizes), device=device)

    def mask(self, scores: "Tensor") -> "Tensor":
        """[units] float32, 1 for the units that are alive with p > 1/2."""
        return (self.alive & (scores > 0.5)).to(scores)

    def backward(self, scores: "Tensor", gradient: "Tensor") -> "Tensor":
        """The gradient and that of the penalty, for the units that are alive."""
        return gradient.add_(scores, alpha=2 * self._penalty).mul_(self.alive)

    def after_step(self, scores: "Tensor", step: int) -> None:
        """Project p into [0, 1]; after every `every`-th step drop units, until no drop is left."""
        scores.clamp_(0.0, 1.0)
        number, rest = divmod(step + 1, self._every)
        if rest == 0 and number <= len(self._densities):
            self._drop(scores, number)

    def _drop(self, scores: "Tensor", number: int) -> None:
        """Keep the largest p among the living; NaN is the loop's to report."""
        import torch

        # -1 is below every p, so the dead stay dead: no drop keeps more than the one before.
        values = torch.where(self.alive, scores, -1.0).nan_to_num(0.0)
        kept = torch.cat(
            [
                LargestMask(round(self._densities[number - 1] * size))(part)
                for size, part in zip(self._sizes, values.split(self._sizes), strict=True)
            ]
        )
        out = self.alive & ~kept
        self.alive &= kept
        self.dropped[out] = number
        self.last[out] = scores[out]

    def order(self, scores: "Tensor") -> "Tensor":
        """[units] float64: twice the drop that took a unit out plus its p then; the living come after all drops."""
        import torch

        drops = torch.where(self.alive, len(self._densities) + 1, self.dropped.double())
        return 2 * drops + torch.where(self.alive, scores, self.last)


@FINDERS.register("gem_miner")
@dataclass(frozen=True)
class GemMiner:
    """Score = the drop that took the unit out, then p: a number from 0 to 1 that was trained as the unit's mask.

    Each forward pass keeps the units that are alive and have p > 1/2; each backward pass takes the gradient of the 0/1
    mask for that of p, adds the penalty's, and projects p to [0, 1] after the step. Every `every` steps the lowest p
    among the living drop out for good, a share 1 - exp(-c * every) of them, so that exactly the density is alive after
    the last drop, whether or not the penalty has brought the mask there. p begins uniformly between 0 and 1.

    The ticket is all units that are alive at the end: where training put more of them below 1/2 than the density asks
    for, these are restored, which a ticket that is not trained afterwards may pay for. They have the lowest scores of
    the ticket. A cut at the density after any drop gives the units that were alive after it.

    The defaults are those of Adam; the paper's are optimizer sgd, learning_rate 0.1 over thousands of steps, and a
    penalty from 3e-6 to 1e-4. A penalty that is large beside the loss's own gradient puts every p below 1/2, whatever
    it is worth: 1e-4 fits a cross entropy, and is too much for a squared distance that is small.

    Made for random networks, whose weights are trained afterwards (begin with `signed_constants`). On a pretrained
    network it is the weakest choice: its authors found it behind iterative magnitude pruning there.

    Columns: `score`, `kept`, `probability` (p at the end, or at the drop), `dropped` (the drop; 0: none).

    Raises:
        OptionError: if an option is out of range, or the steps have no room for a drop.

    Source:
        Sreenivasan et al. 2022, Rare Gems, arXiv 2202.12002, algorithm 1, which prints 1 - e^(cT) for the share; the
        number of drops, floor((steps - 1) / every), is that of the official code. One p for units of several weights,
        and masks over updates: ours.
    """

    name: ClassVar[str] = "gem_miner"
    citation: ClassVar[str] = "Sreenivasan et al. Rare Gems: Finding Lottery Tickets at Initialization. NeurIPS 2022."
    needs: ClassVar[type[Evidence]] = Frozen
    learns_density: ClassVar[bool] = True

    kind: Kind = field(
        default="weight", metadata={"help": "weight: the rest is zero; update: the rest stays as it was."}
    )
    density: float = field(default=0.1, metadata={"help": "Share of the units that is alive after the last drop."})
    scope: Scope = field(
        default="global", metadata={"help": "global: all units compete; group: each group keeps this share."}
    )
    steps: int = field(default=400, metadata={"help": "Optimizer steps, one batch each."})
    every: int | None = field(
        default=None, metadata={"help": "Steps between drops; a thirtieth of all steps if none is given."}
    )
    penalty: float = field(
        default=1e-4, metadata={"help": "lambda of lambda * ||p||^2 in the loss, on whose scale it depends."}
    )
    learning_rate: float = field(default=0.03, metadata={"help": "Of p, at the start; falls as a cosine."})
    optimizer: Optimizer = field(default="adam", metadata={"help": "adam, or sgd with momentum .9 (the paper's)."})
    seed: int = field(default=0, metadata={"help": "Of the p that it begins with."})

    def __post_init__(self) -> None:
        require_mask_options(self.name, self.kind, self.density, self.scope)
        self._descent()
        if not 0.0 <= self.penalty < math.inf:
            raise OptionError(f"Finder 'gem_miner', penalty={self.penalty}: must be a number of 0 or more.")
        self.drop_densities()

    def drop_densities(self) -> list[float]:
        """Share of the units that is alive after each drop; the last one is the density.

        Raises:
            OptionError: if the steps have no room for a drop.
        """
        every = self._every()
        if not 1 <= every < self.steps:
            raise OptionError(
                f"Finder 'gem_miner', every={every} of steps={self.steps}: must be at least 1, and below the number of "
                "steps, so that units drop out before the last one."
            )
        return round_densities("exponential", self.density, rounds=(self.steps - 1) // every)

    def score(self, groups: Sequence[UnitGroup], evidence: Evidence) -> Iterator[UnitScores]:
        """Score every unit.

        Raises:
            UnitError: if a weight, a loss or a score is NaN or infinite.
            OptionError: if an update ticket is asked for without `after`, or the density keeps none or all units.

        Cost:
            `steps` forward and backward passes, and a selection for each drop; beside the masked model four numbers for
            each unit.
        """
        import torch

        assert isinstance(evidence, Frozen)
        with masked(evidence, groups, self.kind) as model:
            KeptUnits(model.sizes, self.density, self.scope)  # refuses masks of none or of all
            how = Survivors(model.sizes, self.drop_densities(), self.scope, self._every(), self.penalty, model.device)
            first = torch.rand(model.num_units, generator=torch.Generator().manual_seed(self.seed))
            scores = learn(model, evidence, first.to(model.device), how, task_loss(model, evidence), self._descent())
            columns = {"probability": torch.where(how.alive, scores, how.last), "dropped": how.dropped}
            entries = list(mask_scores(model, how.order(scores), how.alive, columns))
        yield from entries

    def _every(self) -> int:
        return max(1, self.steps // _DROPS) if self.every is None else self.every

    def _descent(self) -> Descent:
        return Descent(self.steps, self.learning_rate, self.optimizer)
