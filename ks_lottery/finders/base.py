"""What a finder is: a pure function from evidence to scores, one file per method."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, cast, runtime_checkable

import numpy as np

from ks_lottery.checkpoints.reader import Checkpoint
from ks_lottery.registry import Registry
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup


@dataclass(frozen=True)
class Evidence:
    """What a finder looks at; each family of finders has its own subclass."""


@dataclass(frozen=True)
class Shift(Evidence):
    """Two checkpoints of one model: at the start and at the end of the probe.

    Attributes:
        before: the base model.
        after: the same model after the probe.
        level: p-values at or above it need not be exact, since their units will not be chosen: a finder may give such
            units the p-value 1. None: every p-value is wanted.
    """

    before: Checkpoint
    after: Checkpoint
    level: float | None = None


@dataclass(frozen=True)
class UnitScores:
    """Scores of one group.

    Attributes:
        group: the units.
        score: [num_units] float64; a larger score is chosen first.
        columns: what else was measured, name to [num_units] float64; travels with the selected units.
        log_p: [num_units] float64 natural log of each unit's p-value, or None where the finder tests nothing.
        changed: [num_units] bool; False where the evidence of a unit is bit-identical, so that it cannot be chosen.
    """

    group: UnitGroup
    score: np.ndarray
    changed: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    log_p: np.ndarray | None = None


@runtime_checkable
class Finder(Protocol):
    """A method that scores units; a dataclass whose fields are its options.

    Attributes:
        name: registered name.
        citation: the paper, as the model card prints it.
        kind: kind of ticket that the scores are for.
        needs: class of evidence that `score` takes.
    """

    name: ClassVar[str]
    citation: ClassVar[str]
    kind: ClassVar[Kind]
    needs: ClassVar[type[Evidence]]

    def score(self, groups: Sequence[UnitGroup], evidence: Evidence) -> Iterator[UnitScores]:
        """Score every unit of every group, one group at a time."""
        ...


FINDERS: Registry[type[Finder]] = Registry("finder", "ks_lottery.finders")


def finder(method: "str | Finder") -> Finder:
    """Turn a name into a finder with default options; pass an instance through. Errors as `Registry.instance`."""
    return cast(Finder, FINDERS.instance(method, Finder, "finder"))
