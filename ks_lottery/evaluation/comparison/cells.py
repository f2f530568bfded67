"""The cells of a comparison: every row of every table, for every task, density and replicate."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ks_lottery.evaluation.comparison.plan import Plan
from ks_lottery.evaluation.comparison.table import ALL_UNITS, FREQUENCY, FULL_TUNING, NO_TUNING, Table
from ks_lottery.evaluation.record import Record, Role


@dataclass(frozen=True)
class Cell:
    """One thing to train and score.

    Attributes:
        table: its number in the plan.
        task: to train and score on.
        found_on: task that the ticket is found on.
        method: label of the finder, or name of a reference or control.
        role: "reference", "finder" or "control".
        of: label of the finder that a control belongs to.
        control: what a control does.
        density: None for references.
        replicate: seed.
    """

    table: int
    task: str
    found_on: str
    method: str
    role: Role
    of: str
    control: str
    density: float | None
    replicate: int

    def fingerprint(self, plan: Plan, digests: dict[str, str]) -> str:
        """Hex SHA-256 of all that decides the result; `digests` are those of the tasks."""
        table = plan.tables[self.table]
        finder = next((entry for entry in table.finders if entry.label in (self.of, self.method)), None)
        content: dict[str, Any] = {
            **asdict(self),
            "table": [table.kind, table.units, dict(table.unit_options)],
            "finder": None if finder is None else dict(finder.options),
            "budget": asdict(plan.budget),
            "data": [digests[self.task], digests[self.found_on]],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    def record(self, plan: Plan, fingerprint: str, **results: Any) -> Record:
        """The cell with its results."""
        table = plan.tables[self.table]
        return Record(
            cell=fingerprint, method=self.method, role=self.role, of=self.of, control=self.control, kind=table.kind,
            units=table.units, task=self.task, found_on=self.found_on, density=self.density, replicate=self.replicate,
            **results,
        )  # fmt: skip


def cells_of(plan: Plan) -> Iterator[Cell]:
    """All cells of a plan, replicates next to each other: workers that take turns begin with different ones."""
    for number, table in enumerate(plan.tables):
        for task in plan.tasks:
            references = (NO_TUNING, FULL_TUNING, *((ALL_UNITS,) if table.kind == "update" else ()))
            for name in references:
                for seed in plan.replicates[:1] if name == NO_TUNING else plan.replicates:
                    yield Cell(number, task, task, name, "reference", "", "", None, seed)
            for density in table.densities:
                for method, role, of, control in _rows(table):
                    for seed in plan.replicates:
                        yield Cell(number, task, task, method, role, of, control, density, seed)
    yield from _transfers(plan)


def _rows(table: Table) -> Iterator[tuple[str, Role, str, str]]:
    """(method, role, of, control) of the rows with a ticket."""
    for entry in table.finders:
        if entry.is_chance:
            yield entry.label, "control", "", "random"
            continue
        yield entry.label, "finder", "", ""
        for control in table.all_controls:
            yield f"{entry.label}, {control}", "control", entry.label, control
    if table.units == "token_rows":
        yield FREQUENCY, "control", "", FREQUENCY


def _transfers(plan: Plan) -> Iterator[Cell]:
    if plan.transfer is None:
        return
    for number, table in enumerate(plan.tables):
        if plan.transfer.density not in table.densities:
            continue
        labels = [entry.label for entry in table.finders if entry.label in plan.transfer.finders]
        for label in labels:
            chance = table.finder(label).is_chance
            role: Role = "control" if chance else "finder"
            for found_on in plan.tasks:
                for task in plan.tasks:
                    for seed in plan.replicates if task != found_on else ():
                        yield Cell(
                            number, task, found_on, label, role, "", "random" if chance else "",
                            plan.transfer.density, seed,
                        )  # fmt: skip
