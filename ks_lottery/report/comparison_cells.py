"""The cells of a comparison as tables hold them: replicates together, one table for each kind and granularity."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ks_lottery.errors import DataError
from ks_lottery.evaluation.record import Record, Role
from ks_lottery.stats.intervals import Interval
from ks_lottery.stats.means import PooledMeans, pooled_means

_ROLES: tuple[Role, ...] = ("reference", "finder", "control")


@dataclass(frozen=True)
class Row:
    """One method at one density on one task.

    Attributes:
        method: name in the table.
        role: "reference", "finder" or "control".
        of: for a control, the method that it controls.
        control: what the control does.
        task: trained and scored on; the ticket was found on it too.
        density: asked for; None for references.
        records: finished replicates, in their order; at least one.
        score: mean over replicates, with the pooled interval; its ends are NaN where no row has two replicates.
        gain: score minus that of its own shuffle, mean over common replicates; None where there is none.
    """

    method: str
    role: Role
    of: str
    control: str
    task: str
    density: float | None
    records: tuple[Record, ...]
    score: Interval
    gain: Interval | None = None

    def mean(self, measured: Callable[[Record], float | None]) -> float | None:
        """Mean of something over the replicates that have it."""
        values = [value for value in map(measured, self.records) if value is not None]
        return float(np.mean(values)) if values else None

    @property
    def examples(self) -> float:
        """Examples forward and backward, of finding and training together; mean over replicates."""
        costs = [(record.finding, record.training) for record in self.records]
        return float(np.mean([sum(cost.forward + cost.backward for cost in pair) for pair in costs]))


@dataclass(frozen=True)
class Table:
    """All rows of one kind and one granularity.

    Attributes:
        kind: "update" or "weight".
        units: granularity.
        rows: by task; references first, then finders and controls, each by method and density, large ones first.
        pooled: per role its standard deviation of the score over replicates, pooled over its rows, and the degrees of
            freedom of that; a role without a row of two replicates is left out.
    """

    kind: str
    units: str
    rows: tuple[Row, ...]
    pooled: Mapping[Role, tuple[float, int]]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks in order of first appearance."""
        return tuple(dict.fromkeys(row.task for row in self.rows))


def check_records(records: Sequence[Record]) -> None:
    """Check that records can be compared.

    Raises:
        DataError: if there is none, a score is NaN or infinite, a cell has neither score nor error, or two cells are
            the same.
    """
    if not records:
        raise DataError("There is no cell to compare. Run at least one.")
    seen: dict[tuple[object, ...], Record] = {}
    for record in records:
        if record.score is None and not record.error:
            raise DataError(f"The cell {record.cell!r} of {record.method!r} has neither a score nor an error.")
        if record.score is not None and not np.isfinite(record.score):
            raise DataError(
                f"The cell {record.cell!r} of {record.method!r} has the score {record.score}. A run that diverged is a "
                "failed cell: give it an error and no score."
            )
        if seen.setdefault(_place(record), record) is not record:
            raise DataError(
                f"Two cells are {record.method!r} on {record.task!r} with {record.units} at density {record.density}, "
                f"replicate {record.replicate}: {seen[_place(record)].cell!r} and {record.cell!r}. Keep one."
            )


def tables_of(records: Sequence[Record]) -> tuple[Table, ...]:
    """One table for each kind and granularity; references without a granularity stand in all of them.

    Tickets that were found on another task stand in none.
    """
    finished = [record for record in records if record.score is not None]
    places = dict.fromkeys((record.kind, record.units) for record in finished if record.units)
    tables = []
    for kind, units in places or dict.fromkeys((record.kind, "") for record in finished):
        references = [one for one in finished if one.role == "reference" and one.units in ("", units)]
        references = [one for one in references if not one.units or one.kind == kind]
        tickets = [one for one in finished if (one.kind, one.units) == (kind, units) and at_home(one)]
        tables.append(_table(kind, units, references, tickets))
    return tuple(tables)


def at_home(record: Record) -> bool:
    """Whether a ticket was found on the task that it is scored on, or on none."""
    return record.role != "reference" and record.found_on in ("", record.task)


def _table(kind: str, units: str, references: Sequence[Record], tickets: Sequence[Record]) -> Table:
    tasks = list(dict.fromkeys(record.task for record in tickets or references))
    references = [record for record in references if record.task in tasks]
    groups: dict[tuple[object, ...], list[Record]] = {}
    for record in (*references, *tickets):
        key = record.task, record.role, record.method, record.of, record.control, record.density
        groups.setdefault(key, []).append(record)
    ordered = [sorted(group, key=lambda record: record.replicate) for group in groups.values()]
    ordered.sort(key=lambda group: _order(group[0], tasks))
    scores, pooled = _pooled_by_role(ordered)
    differences = [_differences(group, ordered) for group in ordered]
    gains = pooled_means([values for values in differences if values])
    gain = iter(with_ends([values for values in differences if values], gains))
    rows = tuple(
        Row(
            method=group[0].method, role=group[0].role, of=group[0].of, control=group[0].control, task=group[0].task,
            density=group[0].density, records=tuple(group), score=score, gain=next(gain) if values else None,
        )
        for group, score, values in zip(ordered, scores, differences, strict=True)
    )  # fmt: skip
    return Table(kind, units, rows, pooled)


def _pooled_by_role(
    groups: Sequence[Sequence[Record]],
) -> tuple[list[Interval], dict[Role, tuple[float, int]]]:
    """Interval of each group's mean, with the deviation of its role: a draw of chance scatters more than a finder."""
    intervals: dict[int, Interval] = {}
    pooled: dict[Role, tuple[float, int]] = {}
    for role in dict.fromkeys(group[0].role for group in groups):
        places = [place for place, group in enumerate(groups) if group[0].role == role]
        samples = [[_score(record) for record in groups[place]] for place in places]
        means = pooled_means(samples)
        intervals |= dict(zip(places, with_ends(samples, means), strict=True))
        if means.deviation is not None:
            pooled[role] = means.deviation, means.freedom
    return [intervals[place] for place in range(len(groups))], pooled


def with_ends(samples: Sequence[Sequence[float]], pooled: PooledMeans) -> list[Interval]:
    """Pooled intervals; where there are none, means whose ends are NaN."""
    return [
        Interval(float(np.mean(sample)), float("nan"), float("nan")) if interval is None else interval
        for sample, interval in zip(samples, pooled.means, strict=True)
    ]


def _differences(group: Sequence[Record], groups: Sequence[Sequence[Record]]) -> list[float]:
    """Score of a finder minus that of its own shuffle, over the replicates that both have."""
    one = group[0]
    if one.role != "finder":
        return []
    shuffles = {
        record.replicate: _score(record)
        for other in groups
        for record in other
        if (record.control, record.of, record.task, record.density) == ("shuffled", one.method, one.task, one.density)
    }
    return [_score(record) - shuffles[record.replicate] for record in group if record.replicate in shuffles]


def _score(record: Record) -> float:
    assert record.score is not None
    return record.score


def _order(record: Record, tasks: Sequence[str]) -> tuple[object, ...]:
    owner = record.of or record.method
    return (
        tasks.index(record.task), _ROLES.index(record.role), owner, record.control, record.method,
        -(record.density or 0.0),
    )  # fmt: skip


def _place(record: Record) -> tuple[object, ...]:
    return (
        record.method, record.of, record.control, record.kind, record.units, record.task, record.found_on,
        record.density, record.replicate,
    )  # fmt: skip
