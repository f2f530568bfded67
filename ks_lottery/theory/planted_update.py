"""Planted tickets in any model: a teacher that differs from it in known units, and nowhere else."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ks_lottery.checkpoints.reader import Checkpoint
from ks_lottery.errors import OptionError, UnitError
from ks_lottery.ticket.identity import identify
from ks_lottery.ticket.ticket import Kind, Provenance, Selection, Ticket
from ks_lottery.units.slab import UnitGroup, parameters_of

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class PlantedUnits:
    """Units of a model, known to be the whole difference between it and its teacher.

    Attributes:
        groups: the units that were drawn from.
        indices: group name to [k] int64 sorted planted units.
        kind: "update": the teacher is theta0 + m * delta; "weight": it is m * theta0, with zeros in all other units.
        delta: parameter name to float64 array of its shape, 0 outside the planted units; empty of a weight ticket.
        seed: of the draw.
    """

    groups: tuple[UnitGroup, ...]
    indices: Mapping[str, np.ndarray]
    kind: Kind
    delta: Mapping[str, np.ndarray]
    seed: int

    @property
    def count(self) -> int:
        """Number of planted units."""
        return sum(map(len, self.indices.values()))

    def teach(self, model: "torch.nn.Module", units: Mapping[str, np.ndarray] | None = None) -> None:
        """Turn the model into its teacher, in place.

        Args:
            model: as it was when the units were drawn.
            units: group name to the units that get what is planted; the planted ones if None. Others than those have
                nothing that they could get of an update, and stay of a weight ticket.
        """
        import torch

        chosen = self.indices if units is None else units
        with torch.no_grad():
            for group in self.groups:
                own = np.asarray(chosen.get(group.name, ()), dtype=np.int64)
                rest = np.setdiff1d(np.arange(group.num_units), own)
                for slab in group.slabs:
                    values = model.get_parameter(slab.parameter)
                    if self.kind == "weight":
                        slab.fill(values, rest, 0.0)
                        continue
                    delta = torch.as_tensor(slab.take(self.delta[slab.parameter], own), dtype=values.dtype)
                    slab.put(values, own, slab.take(values, own) + delta.to(values.device))

    def ticket(self, base: Checkpoint, granularity: str) -> Ticket:
        """The planted units as a ticket.

        Args:
            base: the model before it was taught.
            granularity: registered name of the units.
        """
        selections = {group.name: Selection(group, self.indices[group.name]) for group in self.groups}
        details = {"seed": self.seed, "count": self.count}
        identity = identify(base, parameters_of(self.groups))
        return Ticket(self.kind, granularity, selections, identity, Provenance("planted", details))


def plant_units(
    groups: Sequence[UnitGroup],
    shapes: Mapping[str, Sequence[int]],
    count: int,
    seed: int,
    size: float = 0.3,
    kind: Kind = "update",
) -> PlantedUnits:
    """Draw units, and of an update what becomes of their weights.

    Args:
        groups: all units that compete; no two units may share a weight.
        shapes: of the parameters that they lie in.
        count: units to plant, over all groups.
        seed: the same seed plants the same on every machine.
        size: every weight of a planted unit moves by this much, up or down.
        kind: of ticket.

    Returns:
        the planted units; `teach` applies them.

    Raises:
        UnitError: if there are fewer units than that, or two units share a weight.
        OptionError: if none or all units would be planted, the size is 0, NaN or infinite, or the kind unknown.
    """
    total = sum(group.num_units for group in groups)
    if count > total:
        raise UnitError(f"{count} units are to be planted, but there are {total}. Plant fewer, or choose other units.")
    if count < 1 or count == total:
        raise OptionError(
            f"{count} of {total} units are to be planted, a density of {count / max(1, total):g}: plant at least one, "
            "and leave at least one that is not, or there is nothing to find."
        )
    if kind not in ("update", "weight"):
        raise OptionError(f"kind={kind!r}: must be update or weight.")
    if not math.isfinite(size) or size == 0.0:
        raise OptionError(f"size={size!r}: planted weights move by a number that is finite and not 0.")
    generator = np.random.default_rng([seed, 1])
    drawn = np.sort(generator.choice(total, size=count, replace=False))
    ends = np.cumsum([group.num_units for group in groups])
    indices = {
        group.name: drawn[(drawn >= end - group.num_units) & (drawn < end)] - (end - group.num_units)
        for group, end in zip(groups, ends, strict=True)
    }
    _require_disjoint(groups, shapes)
    delta = _moves(groups, shapes, indices, size, generator) if kind == "update" else {}
    return PlantedUnits(tuple(groups), indices, kind, delta, seed)


def _moves(
    groups: Sequence[UnitGroup],
    shapes: Mapping[str, Sequence[int]],
    indices: Mapping[str, np.ndarray],
    size: float,
    generator: np.random.Generator,
) -> dict[str, np.ndarray]:
    delta = {name: np.zeros(tuple(shapes[name])) for name in parameters_of(groups)}
    for group in groups:
        own = indices[group.name]
        for slab in group.slabs:
            signs = generator.integers(0, 2, (len(own), slab.weights_per_unit(shapes[slab.parameter])))
            slab.put(delta[slab.parameter], own, size * (2.0 * signs - 1.0))
    return delta


def _require_disjoint(groups: Sequence[UnitGroup], shapes: Mapping[str, Sequence[int]]) -> None:
    """Check that no weight belongs to two units, of which one would be planted and the other not."""
    owners = {name: np.zeros(tuple(shapes[name]), dtype=np.int64) for name in parameters_of(groups)}
    for group in groups:
        units = np.arange(group.num_units)
        for slab in group.slabs:
            seen = owners[slab.parameter]
            slab.put(seen, units, slab.take(seen, units) + 1)
    shared = [name for name, seen in owners.items() if seen.max() > 1]
    if shared:
        raise UnitError(
            f"Two units share weights of {shared[0]!r}, so a planted one would move one that is not. Choose units of "
            "one granularity and end."
        )
