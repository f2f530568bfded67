"""Edge-popup among the free units of a freeze pattern: the others are in or out by a draw, and cost no storage."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ks_lottery.errors import OptionError, TicketError
from ks_lottery.finders.base import FINDERS, Evidence, UnitScores
from ks_lottery.finders.densities import layer_counts
from ks_lottery.finders.masks.edge_popup import first_scores, require_mask_options
from ks_lottery.finders.masks.frozen import Frozen
from ks_lottery.finders.masks.kept import KeptUnits, LargestMask
from ks_lottery.finders.masks.learning import Descent, Optimizer, learn, mask_scores, task_loss
from ks_lottery.finders.masks.masked import masked
from ks_lottery.ticket.freeze_pattern import FREE, LOCKED, FreezePattern, FrozenCounts
from ks_lottery.ticket.ticket import Kind, Ticket
from ks_lottery.units.slab import UnitGroup

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Layers = Literal["uniform", "erk", "balanced"]
_FROZEN = 0.7  # of all units, where the options name no share: the paper's largest models
_ROUNDING = 1e-9  # of a unit: 0.29 * 100 is 28.999999999999996


def freeze_pattern(
    groups: Sequence[UnitGroup],
    shapes: Mapping[str, Sequence[int]],
    density: float,
    pruned: float,
    locked: float,
    layers: Layers = "balanced",
    seed: int = 0,
) -> FreezePattern:
    """A pattern that leaves a ticket of the density possible.

    The scheme shares the units that are not pruned among the layers, and among them those that are free; the difference
    is locked.

    Args:
        groups: the layers.
        shapes: shape of every parameter that they touch.
        density: of the ticket.
        pruned: share of all units that is never in it; rounded down to whole units.
        locked: share of all units that is always in it; rounded down.
        layers: uniform, erk, or balanced, the same number of units in every layer (the paper's edges per layer).
        seed: of the draw.

    Raises:
        OptionError: if the shares do not fit the density, or the scheme is unknown.

    Source:
        Otsuka et al. 2025, arXiv 2402.14029; the shares per layer are those of the official code's
        `sparsity_distribution`, with exact totals.
    """
    require_room(density, pruned, locked)
    sizes = np.array([group.num_units for group in groups], dtype=np.int64)
    total = int(sizes.sum())
    count = round(density * total)
    out = min(math.floor(pruned * total + _ROUNDING), total - count)
    always = min(math.floor(locked * total + _ROUNDING), count)
    kept = _shared(groups, shapes, sizes, total - out, layers)
    free = _shared(groups, shapes, sizes, total - out - always, layers)
    # Rounding may give a layer one free unit too many; other layers have room for it.
    excess = np.maximum(free - kept, 0)
    free -= excess
    room = kept - free
    free += np.minimum(room, np.maximum(excess.sum() - (np.cumsum(room) - room), 0))
    counts = {
        group.name: FrozenCounts(int(size), int(size - rest), int(rest - searched))
        for group, size, rest, searched in zip(groups, sizes, kept, free, strict=True)
    }
    return FreezePattern(seed, counts)


def require_room(density: float, pruned: float, locked: float) -> None:
    """Check that a ticket of the density can have all locked and no pruned units, and that something is left to search.

    Raises:
        OptionError: if it cannot.
    """
    if not (pruned >= 0.0 and locked >= 0.0):
        raise OptionError(f"pruned={pruned:g}, locked={locked:g}: shares of the units must be 0 or more.")
    if pruned > 1 - density + _ROUNDING or locked > density + _ROUNDING:
        raise OptionError(
            f"pruned={pruned:g} and locked={locked:g} leave no ticket of density={density:g}: pruned must be at most "
            f"1 - density = {1 - density:g}, and locked at most {density:g}."
        )
    if pruned + locked > 1 - _ROUNDING:
        raise OptionError(
            f"pruned={pruned:g} and locked={locked:g} freeze all units, so there is nothing to search. Freeze fewer."
        )


def pattern_of(ticket: Ticket) -> FreezePattern:
    """The pattern that a ticket of `partially_frozen` was found in, from its provenance.

    Raises:
        TicketError: if another method found the ticket.
    """
    options = ticket.provenance.details.get("finder_options")
    if ticket.provenance.method != PartiallyFrozen.name or not isinstance(options, Mapping):
        raise TicketError(
            f"The ticket was found by {ticket.provenance.method!r}, which draws no freeze pattern; one of "
            f"{PartiallyFrozen.name!r} has it. ticket.save(folder) stores every ticket."
        )
    groups = [selection.group for selection in ticket.selections.values()]
    return PartiallyFrozen(**options).pattern(groups, ticket.base.shapes)


class FreeUnits:
    """Mask = all locked units and those free ones of the largest |score|; only free units have a score.

    Args:
        pattern: [units] int8 of all groups.
        count: units of the mask.
        device: of scores and masks.
    """

    def __init__(self, pattern: NDArray[np.int8], count: int, device: "torch.device | str" = "cpu") -> None:
        import torch

        self.free = torch.from_numpy(np.flatnonzero(pattern == FREE)).to(device)
        self.locked = torch.from_numpy(pattern == LOCKED).to(device)
        self._keep = LargestMask(count - int(self.locked.sum()))

    def mask(self, scores: "Tensor") -> "Tensor":
        """[units] float32 of all groups, of [free] scores."""
        return self.kept(scores).to(scores)

    def kept(self, scores: "Tensor") -> "Tensor":
        """[units] bool."""
        return self.locked.index_copy(0, self.free, self._keep(scores.abs()))

    def backward(self, scores: "Tensor", gradient: "Tensor") -> "Tensor":
        """[free]: the gradient of the free units with the sign of their score."""
        return gradient.index_select(0, self.free).mul_(scores.sign())

    def after_step(self, scores: "Tensor", step: int) -> None:
        """Nothing."""

    def everywhere(self, scores: "Tensor") -> "Tensor":
        """[units]: |score| of the free; locked units stand above all of them and pruned ones below."""
        import torch

        sizes = scores.abs()
        beyond = sizes.max().clamp_min(1.0)
        return torch.where(self.locked, 2 * beyond, -beyond).index_copy(0, self.free, sizes)


@FINDERS.register("partially_frozen")
@dataclass(frozen=True)
class PartiallyFrozen:
    """Score = |s| of edge-popup with one threshold for all groups, among the units that a draw left free.

    A seed freezes most units: some are never in the ticket (pruned), some always (locked). Only the rest is searched,
    so that the ticket is stored as the seed and one bit for each free unit (`ticket/seeded_store.py`): with 70 % frozen
    3.3 times smaller. The mask has exactly round(density * units) units, the locked ones among them.

    By default 70 % are frozen, in the proportions of the ticket: pruned = .7 (1 - density), locked = .7 density.

    For update tickets locked units always move and pruned ones never do. A cut at the density gives the learnt mask.

    Columns: `score` (locked units above, pruned ones below all others), `kept`, `frozen` (-1 pruned, 0 free, 1 locked).

    Raises:
        OptionError: if an option is out of range, or pruned > 1 - density, or locked > density, or nothing is free.

    Source:
        Otsuka et al. 2025, arXiv 2402.14029. Scores begin as those of `edge_popup`; there as Kaiming normal.
    """

    name: ClassVar[str] = "partially_frozen"
    citation: ClassVar[str] = (
        "Otsuka et al. Partially Frozen Random Networks Contain Compact Strong Lottery Tickets. TMLR 2025."
    )
    needs: ClassVar[type[Evidence]] = Frozen
    learns_density: ClassVar[bool] = True

    kind: Kind = field(
        default="weight", metadata={"help": "weight: the rest is zero; update: the rest stays as it was."}
    )
    density: float = field(
        default=0.3, metadata={"help": "Share of the units that the mask keeps, locked ones included."}
    )
    pruned: float | None = field(
        default=None, metadata={"help": "Share of the units that is never kept; .7 (1 - density) if none is given."}
    )
    locked: float | None = field(
        default=None, metadata={"help": "Share of the units that is always kept; .7 density if none is given."}
    )
    layers: Layers = field(
        default="balanced", metadata={"help": "How the frozen units spread over groups: uniform, erk or balanced."}
    )
    pattern_seed: int = field(default=0, metadata={"help": "Of the freeze pattern; it is stored with the ticket."})
    steps: int = field(default=200, metadata={"help": "Optimizer steps, one batch each."})
    learning_rate: float = field(default=0.01, metadata={"help": "Of the scores, at the start; falls as a cosine."})
    optimizer: Optimizer = field(default="adam", metadata={"help": "adam, or sgd with momentum .9 (the paper's)."})
    weight_decay: float = field(default=0.0, metadata={"help": "Of the scores."})
    seed: int = field(default=0, metadata={"help": "Of the scores that it begins with."})

    def __post_init__(self) -> None:
        require_mask_options(self.name, self.kind, self.density)
        require_room(self.density, *self._shares())
        if self.layers not in ("uniform", "erk", "balanced"):
            raise OptionError(f"Finder {self.name!r}, layers={self.layers!r}: must be uniform, erk or balanced.")
        if self.pattern_seed < 0:
            raise OptionError(f"Finder {self.name!r}, pattern_seed={self.pattern_seed}: must be 0 or more.")
        self._descent()

    def pattern(self, groups: Sequence[UnitGroup], shapes: Mapping[str, Sequence[int]]) -> FreezePattern:
        """The pattern that it searches in; arguments and errors as `freeze_pattern`."""
        return freeze_pattern(groups, shapes, self.density, *self._shares(), self.layers, self.pattern_seed)

    def score(self, groups: Sequence[UnitGroup], evidence: Evidence) -> Iterator[UnitScores]:
        """Score every unit.

        Raises:
            UnitError: if a weight, a loss or a score is NaN or infinite.
            OptionError: if an update ticket is asked for without `after`, or the density keeps none or all units.

        Cost:
            `steps` forward and backward passes; beside the masked model six numbers for each free unit.
        """
        import torch

        assert isinstance(evidence, Frozen)
        with masked(evidence, groups, self.kind) as model:
            shapes = {name: tuple(parameter.shape) for name, parameter in model.wanted.items()}
            drawn = self.pattern(groups, shapes)
            pattern = np.concatenate([drawn.of_group(group.name) for group in groups])
            count = KeptUnits(model.sizes, self.density, "global").counts[0]
            how = FreeUnits(pattern, count, model.device)
            first = first_scores(model, self.seed)[how.free]
            scores = learn(model, evidence, first, how, task_loss(model, evidence), self._descent())
            columns: dict[str, Any] = {"frozen": torch.from_numpy(pattern)}
            entries = list(mask_scores(model, how.everywhere(scores), how.kept(scores), columns))
        yield from entries

    def _shares(self) -> tuple[float, float]:
        return (
            _FROZEN * (1 - self.density) if self.pruned is None else self.pruned,
            _FROZEN * self.density if self.locked is None else self.locked,
        )

    def _descent(self) -> Descent:
        return Descent(self.steps, self.learning_rate, self.optimizer, weight_decay=self.weight_decay)


def _shared(
    groups: Sequence[UnitGroup],
    shapes: Mapping[str, Sequence[int]],
    sizes: NDArray[np.int64],
    count: int,
    layers: Layers,
) -> NDArray[np.int64]:
    """[groups] int64 with this sum, as the scheme spreads them."""
    total = int(sizes.sum())
    if count in (0, total):
        return sizes * (count == total)
    counts = layer_counts(groups, shapes, count / total, layers, allow_empty=True)
    return np.array([counts[group.name] for group in groups], dtype=np.int64)
