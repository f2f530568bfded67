"""Trainings that a finder may ask for: what one is, and what comes of it. Who trains is not decided here."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from typing_extensions import override

from ks_lottery.checkpoints.reader import Checkpoint
from ks_lottery.finders.base import Evidence, UnitScores
from ks_lottery.finders.passes import Passes
from ks_lottery.finders.select import Density, Scope
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup, parameters_of

if TYPE_CHECKING:
    import torch

    from ks_lottery.finders.masks.supernet_search import SupernetRecord, SupernetSearch


@dataclass(frozen=True, slots=True)
class Kept:
    """Which weights of a training count: those of the kept units, and all that no unit owns.

    Attributes:
        groups: the units that compete.
        indices: per group, [k] int64 sorted kept units.
        rest: "weight": units that are not kept are zero; "update": they keep their value of the base model.
    """

    groups: tuple[UnitGroup, ...]
    indices: tuple[np.ndarray, ...]
    rest: Kind

    @property
    def count(self) -> int:
        """Number of kept units."""
        return sum(map(len, self.indices))

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the kept units and of what becomes of the rest."""
        digest = hashlib.sha256(self.rest.encode())
        for group, indices in zip(self.groups, self.indices, strict=True):
            digest.update(f"{group.name} {group.num_units} ".encode())
            digest.update(np.ascontiguousarray(indices, dtype=np.int64).tobytes())
        return digest.hexdigest()

    def masks(self, shapes: Mapping[str, Sequence[int]]) -> "dict[str, torch.Tensor]":
        """Boolean masks of the parameters that the groups touch, False in the units that are not kept.

        Args:
            shapes: of those parameters.

        Cost:
            One byte per weight of the touched parameters.
        """
        import torch

        masks = {name: torch.ones(tuple(shapes[name]), dtype=torch.bool) for name in parameters_of(self.groups)}
        for group, indices in zip(self.groups, self.indices, strict=True):
            dropped = np.setdiff1d(np.arange(group.num_units), indices, assume_unique=True)
            for slab in group.slabs:
                slab.fill(masks[slab.parameter], dropped, False)
        return masks


@dataclass(frozen=True)
class Run:
    """One training. Two runs that are equal in everything have one result, which is made once.

    Attributes:
        start: checkpoint that the values begin with; None: the base model.
        kept: what counts; None: everything.
        trains: parameters that train; None: all. The task head of a classifier always trains.
        first_step: optimizer steps that `start` has behind it: learning rate and data order go on from there, with a
            new optimizer.
        last_step: stop after so many steps, with the schedule of a whole training; None: train to its end.
        part: number of the data partition; None: all data.
        head: checkpoint that a classifier's task head begins with; None: as everything else.
    """

    start: Checkpoint | None = None
    kept: Kept | None = None
    trains: tuple[str, ...] | None = None
    first_step: int = 0
    last_step: int | None = None
    part: int | None = None
    head: Checkpoint | None = None


@dataclass(frozen=True)
class GateSearch:
    """A training with a gate on every unit, which ends when the mask of the largest gates has stopped changing.

    Attributes:
        groups: attention heads or feed-forward neurons; the gate of each unit begins with 1.
        trains: parameters that train beside the gates; None: all. The task head of a classifier always trains.
        density: share of the units that a mask keeps.
        scope: "global": the largest gates of all groups; "group": of each.
        every: optimizer steps between two masks.
        window: number of masks in a row that must agree.
        epsilon: largest share of the units in which agreeing masks differ.
        l1: weight of the penalty, the sum of |gate|.
        gate_rate: how many times as far as the optimizer says a gate steps.
        worm: share of its step that a unit outside the newest mask takes, its weights and its gate; None: all.
    """

    groups: tuple[UnitGroup, ...]
    trains: tuple[str, ...] | None
    density: float
    scope: Scope
    every: int
    window: int
    epsilon: float
    l1: float
    gate_rate: float
    worm: float | None

    def kept(self, gates: Sequence[np.ndarray]) -> Kept:
        """The units with the largest |gate|; on equal ones the earlier unit.

        Args:
            gates: per group, [num_units] float.

        Raises:
            UnitError: if a gate is NaN.
        """
        scores = [
            UnitScores(group, np.abs(gate), np.ones(group.num_units, dtype=bool))
            for group, gate in zip(self.groups, gates, strict=True)
        ]
        chosen = Density(self.density, self.scope).select(scores, [entry.changed for entry in scores])
        return Kept(self.groups, tuple(chosen), "weight")

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        return {**values, "groups": [group.to_dict() for group in self.groups]}


@dataclass(frozen=True)
class GateRecord:
    """What came of a `GateSearch`.

    Attributes:
        gates: per group, [num_units] float64; when the training ended.
        fired: optimizer step at which the masks agreed; None: never.
        steps: optimizer steps of the training.
    """

    gates: tuple[np.ndarray, ...]
    fired: int | None
    steps: int


@dataclass(frozen=True)
class Runs(Evidence):
    """Trainings of one model on one task, each kept where it was made; `ks_lottery.training.runs` has the real one.

    Attributes:
        base: the pretrained model.
        steps: optimizer steps of a whole training.
        parts: number of data partitions that a run may ask for.
        passes: examples of all runs asked for, those that were made before included.
    """

    described: ClassVar[str] = "repeated training, evidence=TrainerRuns(...)"

    base: Checkpoint
    steps: int
    parts: int = 1
    passes: Passes = field(default_factory=Passes, compare=False)

    def train(self, run: Run) -> Checkpoint:
        """Train, or find what an earlier call trained.

        Raises:
            OptionError: if a step lies beyond the training, or a part does not exist.
        """
        raise NotImplementedError

    def train_gates(self, search: GateSearch) -> GateRecord:
        """Train with gates, or find what an earlier call trained.

        Raises:
            UnitError: if the units have no gates in this model.
            DataError: if a gate becomes NaN or infinite.
        """
        raise NotImplementedError

    def train_supernet(self, search: "SupernetSearch") -> "SupernetRecord":
        """Train a supernet, or find what an earlier call trained; errors as `train_gates`."""
        raise NotImplementedError

    @override
    def details(self) -> dict[str, Any]:
        return {"base": self.base.name, "steps": self.steps, "parts": self.parts}
