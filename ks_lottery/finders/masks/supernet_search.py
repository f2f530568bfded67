"""A search for architecture and mask in one training: what is asked for, and the tickets that come of it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ks_lottery.finders.select import largest
from ks_lottery.units.slab import UnitGroup


@dataclass(frozen=True)
class SupernetSearch:
    """A training with a gate on every head and neuron, whose kept share falls from event to event.

    Attributes:
        groups: units of granularity `supernet`, `heads` or `neurons`; the gate of each begins with 1.
        trains: parameters that train beside the gates; None: all. The task head of a classifier always trains.
        costs: of one unit of each group; what they are relative to, the caller decides.
        layers: whether each sublayer has a gate of its own, too, by which all its units are multiplied.
        every: optimizer steps between two events, at which a mask is drawn.
        drop: share of all units by which the kept share falls at each event.
        density: share of the units below which it does not fall.
        masked: share of the steps from an event to the next for which units outside its mask stay out of the model.
        l1: weight of the penalty, the sum of cost * |gate|.
        warmup: optimizer steps over which the penalty grows to that weight.
        gate_rate: how many times as far as the optimizer says a gate steps.
        threshold: a gate is dead if neither it nor its moving average is larger.
        memory: share of the moving average that a step keeps.
    """

    groups: tuple[UnitGroup, ...]
    trains: tuple[str, ...] | None
    costs: tuple[float, ...]
    layers: bool
    every: int
    drop: float
    density: float
    masked: float
    l1: float
    warmup: int
    gate_rate: float
    threshold: float
    memory: float

    @property
    def num_units(self) -> int:
        """Units of all groups."""
        return sum(group.num_units for group in self.groups)

    def density_at(self, event: int) -> float:
        """Share of the units that the mask of an event keeps; events count from 1."""
        return max(self.density, round(1.0 - event * self.drop, 12))

    def kept(self, gates: np.ndarray, candidates: np.ndarray, event: int) -> np.ndarray:
        """The mask of an event: of the candidates those with the largest |gate|; on equal ones the earlier unit.

        Args:
            gates: [units] float, over all groups in their order.
            candidates: [units] bool.
            event: from 1.

        Returns:
            [units] bool; round(density_at(event) * units) of them, or all candidates where those are fewer.
        """
        count = min(int(candidates.sum()), max(1, round(self.density_at(event) * self.num_units)))
        mask = np.zeros(len(gates), dtype=bool)
        mask[largest([np.abs(gates)], [candidates], count)[0]] = True
        return mask

    def split(self, flat: np.ndarray) -> list[np.ndarray]:
        """The parts of an array [..., units] that belong to the groups."""
        ends = np.cumsum([group.num_units for group in self.groups])
        return np.split(flat, ends[:-1], axis=-1)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        return {**values, "groups": [group.to_dict() for group in self.groups]}


@dataclass(frozen=True)
class SupernetRecord:
    """What came of a `SupernetSearch`: one ticket for each event of the one training.

    Attributes:
        at: optimizer step of each event.
        gates: [events, units] float64; gates of the units, those of their sublayers multiplied in.
        kept: [events, units] bool; the mask that was drawn.
        alive: [events, units] bool; False from the event on at which a unit's gate was found dead.
        steps: optimizer steps of the training.
    """

    at: tuple[int, ...]
    gates: np.ndarray
    kept: np.ndarray
    alive: np.ndarray
    steps: int

    def event_scores(self, event: int) -> np.ndarray:
        """[units] float64: units of the mask of an event, from 1, above all others, both by |gate|."""
        return _placed(self.kept[event - 1].astype(np.float64), np.abs(self.gates[event - 1]))

    def last_kept(self) -> np.ndarray:
        """[units] int64: the last event whose mask had the unit; 0: none."""
        events = np.arange(1, 1 + len(self.kept))[:, None]
        found: np.ndarray = (events * self.kept).max(axis=0)
        return found

    def scores(self) -> np.ndarray:
        """[units] float64: the last event whose mask had the unit, then |gate| at the one that left it out for good."""
        last = self.last_kept()
        fell = np.minimum(last, len(self.gates) - 1)
        return _placed(last.astype(np.float64), np.abs(self.gates[fell, np.arange(len(last))]))


def _placed(whole: np.ndarray, gates: np.ndarray) -> np.ndarray:
    """Whole numbers first; gates, squeezed into [0, 1), order those that are equal."""
    largest_gate = float(gates.max())
    squeezed: np.ndarray = gates * (1 - 2.0**-20) / largest_gate if largest_gate > 0 else 0 * gates
    return whole + squeezed


def relative_costs(groups: Sequence[UnitGroup], weights: Sequence[int]) -> tuple[float, ...]:
    """Weights of one unit of each group, over the average of all units.

    Args:
        groups: the units.
        weights: of one unit of each group.
    """
    sizes = [group.num_units for group in groups]
    average = sum(size * own for size, own in zip(sizes, weights, strict=True)) / sum(sizes)
    return tuple(own / average for own in weights)
