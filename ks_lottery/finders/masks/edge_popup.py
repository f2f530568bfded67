"""Edge-popup: a score for every unit, a mask of the largest ones, and gradients that pass straight through it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ks_lottery.errors import OptionError
from ks_lottery.finders.base import FINDERS, Evidence, UnitScores
from ks_lottery.finders.masks.frozen import Frozen
from ks_lottery.finders.masks.kept import KeptUnits
from ks_lottery.finders.masks.learning import Descent, Optimizer, learn, mask_scores, task_loss
from ks_lottery.finders.masks.masked import MaskedModel, masked
from ks_lottery.finders.select import Scope
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup

if TYPE_CHECKING:
    from torch import Tensor


class StraightThrough:
    """Mask = 1 for the largest |score|; the mask's gradient is taken for that of |score|.

    Args:
        keep: makes the mask of exactly so many.

    Source:
        Ramanujan et al. 2020, arXiv 1911.13299, section 3.2; the sign that |.| carries is that of the official code.
    """

    def __init__(self, keep: KeptUnits) -> None:
        self._keep = keep
        self._room: Tensor | None = None  # of the size of the scores, used again at every step

    def mask(self, scores: "Tensor") -> "Tensor":
        """[units] float32, 1 for the units that are kept; overwritten by the next call."""
        import torch

        if self._room is None:
            self._room = torch.empty_like(scores)
        return self._room.copy_(self._keep(torch.abs(scores, out=self._room)))

    def kept(self, scores: "Tensor") -> "Tensor":
        """[units] bool."""
        return self._keep(scores.abs())

    def backward(self, scores: "Tensor", gradient: "Tensor") -> "Tensor":
        """The gradient with the sign of the score."""
        import torch

        return gradient.mul_(torch.sign(scores, out=self._room))

    def after_step(self, scores: "Tensor", step: int) -> None:
        """Nothing."""


@FINDERS.register("edge_popup")
@dataclass(frozen=True)
class EdgePopup:
    """Score = |s|, where s was trained so that the model does well with the units of the largest |s| alone.

    Each forward pass keeps exactly the density of the units with the largest |s|; each backward pass takes the
    gradient of the 0/1 mask for that of |s|. Weights are never trained. A unit of several weights has one score, whose
    gradient is the sum over its weights. Scores begin uniformly between -1 and 1 over the root of the fan-in.

    Units that the learnt mask keeps stand before all others, so that `Density` of the same density gives that mask.

    With `scope="global"` one threshold serves all groups (global edge-popup); with "group" each keeps the same share.
    The defaults are those of Adam; the paper's are optimizer sgd, learning_rate 0.1, weight_decay 5e-4.

    On a random network begin with signed constants (`signed_constants`): the paper's best. Columns: `score`, `kept`.

    Raises:
        OptionError: if an option is out of range.

    Source:
        Ramanujan et al. 2020, arXiv 1911.13299; one threshold for all layers: Otsuka et al. 2025, arXiv 2402.14029.
    """

    name: ClassVar[str] = "edge_popup"
    citation: ClassVar[str] = "Ramanujan et al. What's Hidden in a Randomly Weighted Neural Network? CVPR 2020."
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
    learning_rate: float = field(default=0.01, metadata={"help": "Of the scores, at the start; falls as a cosine."})
    optimizer: Optimizer = field(default="adam", metadata={"help": "adam, or sgd with momentum .9 (the paper's)."})
    weight_decay: float = field(default=0.0, metadata={"help": "Of the scores."})
    seed: int = field(default=0, metadata={"help": "Of the scores that it begins with."})

    def __post_init__(self) -> None:
        require_mask_options(self.name, self.kind, self.density, self.scope)
        self._descent()

    def score(self, groups: Sequence[UnitGroup], evidence: Evidence) -> Iterator[UnitScores]:
        """Score every unit.

        Raises:
            UnitError: if a weight, a loss or a score is NaN or infinite.
            OptionError: if an update ticket is asked for without `after`.

        Cost:
            `steps` forward and backward passes; beside the masked model four numbers for each unit.
        """
        assert isinstance(evidence, Frozen)
        with masked(evidence, groups, self.kind) as model:
            how = StraightThrough(KeptUnits(model.sizes, self.density, self.scope))
            scores = learn(
                model, evidence, first_scores(model, self.seed), how, task_loss(model, evidence), self._descent()
            )
            entries = list(mask_scores(model, scores.abs(), how.kept(scores)))
        yield from entries

    def _descent(self) -> Descent:
        return Descent(self.steps, self.learning_rate, self.optimizer, weight_decay=self.weight_decay)


def first_scores(model: MaskedModel, seed: int) -> "Tensor":
    """[units] float32, uniform between -b and b, where b = 1 / sqrt(fan-in), the fan-in of each group's first matrix.

    Drawn on the CPU, so that a seed gives the same scores on every device.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    parts = []
    for group in model.groups:
        shape = model.wanted[group.slabs[0].parameter].shape
        bound = max(1, shape[-1] if len(shape) > 1 else 1) ** -0.5
        parts.append((2 * torch.rand(group.num_units, generator=generator) - 1) * bound)
    return torch.cat(parts).to(model.device)


def require_mask_options(finder: str, kind: str, density: float, scope: str = "group") -> None:
    """Check the options that all learnt masks have.

    Raises:
        OptionError: if one is out of range.
    """
    if kind not in ("weight", "update"):
        raise OptionError(f"Finder {finder!r}, kind={kind!r}: must be weight or update.")
    if not 0.0 < density < 1.0:
        raise OptionError(
            f"Finder {finder!r}, density={density}: must lie between 0 and 1: a mask of nothing, or of everything, is "
            "not learnt."
        )
    if scope not in ("global", "group"):
        raise OptionError(f"Finder {finder!r}, scope={scope!r}: must be global or group.")
