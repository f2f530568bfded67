"""Moment matching: a mask under which the features of a model have the means and variances that they should have."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ks_lottery.errors import DataError, OptionError
from ks_lottery.finders.base import FINDERS, Evidence, UnitScores
from ks_lottery.finders.masks.edge_popup import StraightThrough, first_scores, require_mask_options
from ks_lottery.finders.masks.frozen import Frozen
from ks_lottery.finders.masks.kept import KeptUnits
from ks_lottery.finders.masks.learning import Descent, Objective, Optimizer, learn, mask_scores
from ks_lottery.finders.masks.masked import MaskedModel, masked
from ks_lottery.finders.masks.moment_features import (
    Moments,
    MomentTargets,
    hidden_features,
    moments_of,
    wanted_moments,
)
from ks_lottery.finders.saliency.gradients import loss_of
from ks_lottery.finders.select import Scope
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class LearntAverage:
    """A moving average of moment gaps that an optimizer learns, and the linear loss that it makes of a gap.

    The average a is trained to make |a - gap|^2 small, so that its fixed point is the mean gap. The loss a . gap, in
    which a is a constant, then has half the gradient of |gap|^2. An average begins with 0 and moves by about the rate
    in each step: at small rates the first steps say more of the signs of the gaps than of their sizes.

    Args:
        rate: of Adam, for the averages.

    Source:
        dos Santos et al. 2019 (GFMN), arXiv 1904.02762, section 2.3, as Yeo et al. 2023 use it.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._optimizer: torch.optim.Optimizer | None = None
        self.averages: list[Tensor] = []

    def __call__(self, gaps: "Sequence[Tensor]") -> "Tensor":
        """Move the averages one step towards the gaps, then the loss: the sum of average . gap.

        Args:
            gaps: of means and variances, [f] each, with gradient; the same shapes in every call.
        """
        import torch

        if self._optimizer is None:
            self.averages = [torch.zeros_like(gap, requires_grad=False) for gap in gaps]
            self._optimizer = torch.optim.Adam(self.averages, lr=self._rate)
        for average, gap in zip(self.averages, gaps, strict=True):
            average.grad = 2 * (average - gap.detach())
        self._optimizer.step()
        return torch.stack([(average * gap).sum() for average, gap in zip(self.averages, gaps, strict=True)]).sum()


def squared(gaps: "Sequence[Tensor]") -> "Tensor":
    """|gap|^2, summed over all gaps: the direct loss."""
    import torch

    return torch.stack([gap.square().sum() for gap in gaps]).sum()


def moment_gaps(wanted: Sequence[Moments], found: Sequence[Moments], relative: bool = False) -> "list[Tensor]":
    """What is missing to the wanted moments: for each layer the gaps of its means, and of its variances.

    Args:
        wanted: one entry per layer.
        found: of the same layers.
        relative: measure each layer by its own size: means in units of the layer's root mean variance, variances in
            units of its mean variance, both over the root of its number of features.

    Raises:
        DataError: if the layers do not agree.
    """
    shapes = [[tuple(one.mean.shape) for one in moments] for moments in (wanted, found)]
    if shapes[0] != shapes[1]:
        raise DataError(
            f"The targets are moments of layers of {shapes[0]} features, but the model's have {shapes[1]}. Compute "
            "both with the same function."
        )
    gaps = []
    for want, have in zip(wanted, found, strict=True):
        spread = want.variance.mean().clamp_min(1e-12) if relative else 1.0
        root = (len(want.mean) * spread) ** 0.5 if relative else 1.0
        gaps += [(want.mean - have.mean) / root, (want.variance - have.variance) / (root * spread**0.5)]
    return gaps


def moment_gap(wanted: Sequence[Moments], found: Sequence[Moments]) -> float:
    """One number for reports: the mean over features of the squared gap of means, plus that of variances."""
    import torch

    gaps = moment_gaps(wanted, found)
    return float(torch.cat(gaps[::2]).square().mean() + torch.cat(gaps[1::2]).square().mean())


@FINDERS.register("moments")
@dataclass(frozen=True)
class MomentMatching:
    """Score = |s|, where s was trained so that the units of the largest |s| give features their means and variances.

    Nobody's labels are read. For text the features are the hidden states at all positions that the attention mask
    counts, layer by layer, and the logits; they are to have the means and variances that the unmasked model gives
    them on the same batch: f(theta) for a weight ticket, f(theta0 + delta) for an update ticket. Evidence
    `MomentTargets` says otherwise: features of what a generator makes of noise, and moments of data.

    The mask is that of `edge_popup`: exactly the density of the units with the largest |s| in each forward pass, and
    gradients that pass straight through. The loss is the squared gap of the means and of the variances, summed over
    features. With `average` it is the paper's: a moving average of the gap, learnt by Adam, times the gap. At its rate
    the average moves by about 1e-5 in a step, so that short searches do better without.

    With `relative` every layer counts alike; otherwise layers with large activations count most. Units of the learnt
    mask stand before all others. Columns: `score`, `kept`.

    Raises:
        OptionError: if an option is out of range.

    Source:
        Yeo et al. 2023, arXiv 2212.08311 (weight tickets of random generators). Hidden states of transformers, update
        tickets, units of several weights and the relative gap: ours.
    """

    name: ClassVar[str] = "moments"
    citation: ClassVar[str] = "Yeo et al. Can We Find Strong Lottery Tickets in Generative Models? AAAI 2023."
    needs: ClassVar[type[Evidence]] = Frozen
    learns_density: ClassVar[bool] = True

    kind: Kind = field(
        default="weight", metadata={"help": "weight: the rest is zero; update: the rest stays as it was."}
    )
    density: float = field(default=0.5, metadata={"help": "Share of the units that the mask keeps."})
    scope: Scope = field(
        default="group", metadata={"help": "group: each group keeps this share; global: all units compete."}
    )
    steps: int = field(default=200, metadata={"help": "Optimizer steps, one batch each."})
    learning_rate: float = field(default=0.005, metadata={"help": "Of the scores, at the start; falls as a cosine."})
    optimizer: Optimizer = field(default="adam", metadata={"help": "adam, or sgd with momentum .9."})
    relative: bool = field(default=False, metadata={"help": "Measure the gaps of each layer by its target's size."})
    average: bool = field(default=False, metadata={"help": "The paper's loss: a learnt moving average times the gap."})
    average_rate: float = field(default=1e-5, metadata={"help": "Learning rate of the moving average."})
    seed: int = field(default=0, metadata={"help": "Of the scores that it begins with."})

    def __post_init__(self) -> None:
        require_mask_options(self.name, self.kind, self.density, self.scope)
        if not 0.0 < self.average_rate < 1.0:
            raise OptionError(f"Finder 'moments', average_rate={self.average_rate}: must lie between 0 and 1.")
        self._descent()

    def score(self, groups: Sequence[UnitGroup], evidence: Evidence) -> Iterator[UnitScores]:
        """Score every unit.

        Raises:
            UnitError: if a weight, a gap or a score is NaN or infinite, or no feature depends on the units.
            OptionError: if an update ticket is asked for without `after`.
            DataError: if the model has no hidden states, a batch fewer than two positions, or targets other layers.

        Cost:
            One forward pass over all batches for the targets, then `steps` forward and backward passes. Memory:
            beside the masked model four numbers for each unit, and two for each feature of each batch.
        """
        assert isinstance(evidence, Frozen)
        with masked(evidence, groups, self.kind) as model:
            how = StraightThrough(KeptUnits(model.sizes, self.density, self.scope))
            scores = learn(
                model, evidence, first_scores(model, self.seed), how, self._objective(model, evidence), self._descent()
            )
            yield from mask_scores(model, scores.abs(), how.kept(scores))

    def _objective(self, model: MaskedModel, evidence: Frozen) -> Objective:
        """The loss of the moments of a batch; the model is unmasked when this is called."""
        features = evidence.features if isinstance(evidence, MomentTargets) else hidden_features
        targets = list(wanted_moments(evidence, features))
        loss = LearntAverage(self.average_rate) if self.average else squared

        def of_features(number: int, network: "torch.nn.Module", batch: dict[str, object]) -> "Tensor":
            return loss(moment_gaps(targets[number], moments_of(features(network, batch)), self.relative))

        return lambda number, batch: loss_of(
            evidence, lambda network, inputs: of_features(number, network, dict(inputs)), model.wanted, number, batch
        )

    def _descent(self) -> Descent:
        return Descent(self.steps, self.learning_rate, self.optimizer)
