"""One cell of a comparison: what was asked, what was trained, how it scored and what it cost."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ks_lottery.errors import DataError

Role = Literal["reference", "finder", "control"]


@dataclass(frozen=True, kw_only=True)
class CellCost:
    """What a part of a cell took.

    Attributes:
        forward: examples computed forward.
        backward: examples differentiated.
        seconds: wall-clock time.
        peak_bytes: largest memory of the process meanwhile.
    """

    forward: int = 0
    backward: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0

    def plus(self, forward: int, backward: int, seconds: float, peak_bytes: int) -> "CellCost":
        """This and something else that was done after it."""
        return CellCost(
            forward=self.forward + forward,
            backward=self.backward + backward,
            seconds=self.seconds + seconds,
            peak_bytes=max(self.peak_bytes, peak_bytes),
        )


@dataclass(frozen=True, kw_only=True)
class Record:
    """A finished or failed cell.

    Attributes:
        cell: fingerprint of everything that decides the result.
        method: name in the table ("ks", "random", "full tuning").
        role: "reference" (full tuning, no tuning: no ticket), "finder", or "control".
        of: for a control, the method that it controls; empty where it controls all ("random").
        control: what the control does ("shuffled", "inverted", "random", "frequency"); empty for others.
        kind: "update" or "weight".
        units: granularity.
        task: trained and scored on.
        found_on: task that the ticket was found on.
        density: asked for, over the units of the granularity; None for references.
        realised: share of weights that the ticket owns of all weights in its unit groups.
        trainable: weights that were trained.
        replicate: seed of finding, data order and draws.
        score: the task's main score; larger is better.
        scores: all scores of the task by name.
        finding: cost of finding the ticket, all that its finder needs included (a probe, rounds).
        training: cost of training it.
        ticket_bytes: size of what was trained, on disk.
        ticket: name of the ticket's file in the store; empty for references.
        error: one line, if the cell crashed; its scores are then empty.
    """

    cell: str
    method: str
    role: Role
    of: str = ""
    control: str = ""
    kind: str
    units: str
    task: str
    found_on: str
    density: float | None
    replicate: int
    realised: float | None = None
    trainable: int = 0
    score: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    finding: CellCost = CellCost()
    training: CellCost = CellCost()
    ticket_bytes: int = 0
    ticket: str = ""
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON values by field."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Record":
        """Read what `to_dict` wrote.

        Raises:
            DataError: if a field is unknown, missing or malformed.
        """
        try:
            costs = {name: CellCost(**data[name]) for name in ("finding", "training")}
            return cls(**{**data, **costs})
        except (TypeError, KeyError) as error:
            raise DataError(f"A line of the store is no cell of a comparison ({error}): {dict(data)}.") from error
