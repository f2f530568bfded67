"""What a finder is: a pure function from evidence to scores, one file per method."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

import numpy as np
from typing_extensions import override

from ks_lottery.checkpoints.reader import Checkpoint
from ks_lottery.errors import OptionError
from ks_lottery.registry import Registry
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup


@dataclass(frozen=True)
class Evidence:
    """What a finder looks at; each family of finders has its own subclass. Chance looks at nothing, which is this."""

    described: ClassVar[str] = "nothing"

    def details(self) -> dict[str, Any]:
        """What it is, as JSON values for the provenance of a ticket."""
        return {}


@dataclass(frozen=True)
class Shift(Evidence):
    """Two checkpoints of one model: at the start and at the end of the probe.

    Attributes:
        before: the base model.
        after: the same model after the probe.
        level: p-values at or above it need not be exact, since their units will not be chosen: a finder may give such
            units the p-value 1. None: every p-value is wanted.
    """

    described: ClassVar[str] = "two checkpoints, find_ticket(before, after)"

    before: Checkpoint
    after: Checkpoint
    level: float | None = None

    @override
    def details(self) -> dict[str, Any]:
        return {"before": self.before.name, "after": self.after.name}


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
        kind: kind of ticket that the scores are for; an option of finders that serve both.
        needs: class of evidence that `score` takes.
    """

    name: ClassVar[str]
    citation: ClassVar[str]
    needs: ClassVar[type[Evidence]]

    @property
    def kind(self) -> Kind:
        """Kind of ticket that the scores are for."""
        ...

    def score(self, groups: Sequence[UnitGroup], evidence: Evidence) -> Iterator[UnitScores]:
        """Score every unit of every group, one group at a time."""
        ...


FINDERS: Registry[type[Finder]] = Registry("finder", "ks_lottery.finders")


def finder(method: "str | Finder") -> Finder:
    """Turn a name into a finder with default options; pass an instance through. Errors as `Registry.instance`."""
    return cast(Finder, FINDERS.instance(method, Finder, "finder"))


def require_evidence(method: Finder, evidence: Evidence) -> None:
    """Check that a finder is given what it looks at.

    Raises:
        OptionError: if it is evidence of another family.
    """
    if not isinstance(evidence, method.needs):
        raise OptionError(
            f"Finder {method.name!r} looks at {method.needs.described}, but was given {evidence.described}. Give it "
            "that, or choose a finder of this evidence."
        )
