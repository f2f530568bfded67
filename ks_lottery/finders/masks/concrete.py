"""Concrete ticket search: a relaxed mask that is drawn anew at each step, and a density that holds itself."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from typing_extensions import override

from ks_lottery.errors import OptionError
from ks_lottery.finders.base import FINDERS, Evidence, UnitScores
from ks_lottery.finders.masks.balance import Balance, GradBalance, Lagrangian
from ks_lottery.finders.masks.edge_popup import require_mask_options
from ks_lottery.finders.masks.frozen import Frozen
from ks_lottery.finders.masks.kept import KeptUnits
from ks_lottery.finders.masks.learning import Descent, learn, mask_scores
from ks_lottery.finders.masks.masked import MaskedModel, masked
from ks_lottery.finders.masks.objectives.base import OBJECTIVES
from ks_lottery.finders.masks.objectives.dense import objective_of
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Balancing = Literal["gradbalance", "lagrangian"]
_EXTREME = 1e-7  # float32 tells 1 - this from 1


class BinaryConcrete:
    """Mask = sigmoid(logistic noise / temperature + score), with new noise at each step.

    Args:
        density: that the probabilities sigmoid(score) are held to.
        temperature: of the noise; the smaller, the nearer the mask is to 0 and 1.
        balance: weight of the density term.
        generator: of the noise, on the device of the scores.

    Source:
        Maddison et al. 2017, arXiv 1611.00712, as used by Arora & Teuscher 2025, arXiv 2512.07142.
    """

    def __init__(self, density: float, temperature: float, balance: Balance, generator: "torch.Generator") -> None:
        self._density, self._temperature = density, temperature
        self._balance, self._generator = balance, generator
        self.drawn: Tensor

    def mask(self, scores: "Tensor") -> "Tensor":
        """[units] float32 between 0 and 1; a new draw, which `drawn` keeps."""
        import torch

        uniform = torch.rand(scores.shape, generator=self._generator, device=scores.device)
        self.drawn = torch.add(scores, uniform.logit_(_EXTREME), alpha=1 / self._temperature).sigmoid_()
        return self.drawn

    def backward(self, scores: "Tensor", gradient: "Tensor") -> "Tensor":
        """Gradient of the objective by the scores, and of the density's excess as strong as the balance says."""
        task = gradient.mul_(_variance(self.drawn))
        excess, slope = self.excess(scores)
        return task.add_(slope, alpha=self._balance.weight(excess, task, slope))

    def excess(self, scores: "Tensor") -> "tuple[float, Tensor]":
        """How far the density is above the one that is aimed at, in percent of that; and its gradient, [units]."""
        aim = self._balance.slack * self._density * len(scores)
        probability = scores.sigmoid()
        return 100 * (float(probability.sum()) / aim - 1), _variance(probability).mul_(100 / aim)

    def after_step(self, scores: "Tensor", step: int) -> None:
        """Nothing."""


def _variance(probability: "Tensor") -> "Tensor":
    """The derivative p (1 - p) of a sigmoid by its argument."""
    import torch

    return torch.addcmul(probability, probability, probability, value=-1)


@dataclass(frozen=True)
class LateDrop(Descent):
    """A rate that stays, and falls to a tenth after 88 % of the steps."""

    @override
    def rate(self, step: int) -> float:
        return self.learning_rate * (0.1 if step >= 0.88 * self.steps else 1.0)


@FINDERS.register("concrete")
@dataclass(frozen=True)
class ConcreteTicketSearch:
    """Score = alpha, the logit with which a unit is kept, trained so that the model does as the dense model does.

    Each step draws a mask between 0 and 1 from alpha and logistic noise and takes the gradient of the objective through
    it. The density needs no weight of its own to be tuned: its gradient is as strong as that of the objective where the
    density is too large, and else fades (GradBalance). The mask in the end is the density of all units with the largest
    alpha. Weights are never trained. A unit of several weights has one alpha.

    By default the objective is the reverse divergence from the outputs of the dense model, which needs no labels. Units
    that the learnt mask keeps stand before all others, so that `Density` of the same density gives that mask.

    The noise is drawn on the model's device: the same seed gives the same ticket on the same device. Columns: `score`
    (alpha), `kept`.

    Raises:
        OptionError: if an option is out of range.
        UnknownNameError: if there is no such objective.

    Source:
        Arora & Teuscher 2025 (Concrete Ticket Search), arXiv 2512.07142; update tickets are ours.
    """

    name: ClassVar[str] = "concrete"
    citation: ClassVar[str] = "Arora & Teuscher. Concrete Ticket Search. arXiv 2512.07142, 2025."
    needs: ClassVar[type[Evidence]] = Frozen
    learns_density: ClassVar[bool] = True

    kind: Kind = field(
        default="weight", metadata={"help": "weight: the rest is zero; update: the rest stays as it was."}
    )
    density: float = field(default=0.05, metadata={"help": "Share of all units that the mask keeps."})
    objective: str = field(
        default="kl",
        metadata={"help": "kl, forward_kl, feature, loss, deltaloss, gradnorm or gradmatch: what is made small."},
    )
    steps: int = field(default=400, metadata={"help": "Optimizer steps, one batch each."})
    learning_rate: float = field(default=0.1, metadata={"help": "Of alpha (Adam); a tenth after 88 % of the steps."})
    temperature: float = field(default=2 / 3, metadata={"help": "Of the relaxed mask; towards 0 it becomes 0 or 1."})
    balance: Balancing = field(
        default="gradbalance",
        metadata={"help": "gradbalance, or lagrangian: the density's weight climbs while it is too large."},
    )
    seed: int = field(default=0, metadata={"help": "Of the noise."})

    def __post_init__(self) -> None:
        require_mask_options(self.name, self.kind, self.density)
        OBJECTIVES.get(self.objective)
        if not 0.0 < self.temperature < math.inf:
            raise OptionError(
                f"Finder {self.name!r}, temperature={self.temperature}: must be a number above 0; the paper's is 2/3."
            )
        if self.balance not in get_args(Balancing):
            raise OptionError(
                f"Finder {self.name!r}, balance={self.balance!r}: must be one of {', '.join(get_args(Balancing))}."
            )
        self._descent()

    def score(self, groups: Sequence[UnitGroup], evidence: Evidence) -> Iterator[UnitScores]:
        """Score every unit.

        Raises:
            UnitError: if a weight, a loss, an output or a score is NaN or infinite.
            OptionError: if an update ticket is asked for without `after`, or the objective needs second derivatives
                that the model's attention lacks.
            DataError: if the objective needs outputs that the model does not give.

        Cost:
            `steps` forward and backward passes (gradnorm and gradmatch: two backward), and a forward pass of the dense
            model for each batch; six numbers for each unit, and up to 256 MiB of the dense model's outputs.
        """
        import torch

        assert isinstance(evidence, Frozen)
        with masked(evidence, groups, self.kind) as model:
            keep = KeptUnits(model.sizes, self.density, "global")
            generator = torch.Generator(model.device).manual_seed(self.seed)
            how = BinaryConcrete(self.density, self.temperature, self._balance(), generator)
            alpha = torch.full((model.num_units,), math.log(self.density / (1 - self.density)), device=model.device)
            with objective_of(self.objective, model, evidence, lambda: how.drawn) as objective:
                alpha = learn(model, evidence, alpha, how, objective, self._descent())
            entries = list(mask_scores(model, alpha, keep(_movable_first(model, alpha))))
        yield from entries

    def _descent(self) -> Descent:
        return LateDrop(self.steps, self.learning_rate)

    def _balance(self) -> Balance:
        return GradBalance() if self.balance == "gradbalance" else Lagrangian(self.learning_rate)


def _movable_first(model: MaskedModel, alpha: "Tensor") -> "Tensor":
    """Alpha, where a unit that did not move, of which no batch says anything, comes after all others."""
    import torch

    movable = torch.from_numpy(model.movable()).to(alpha.device)
    return alpha.where(movable, alpha.min() - 1)
