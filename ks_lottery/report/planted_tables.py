"""The tables of the planted benchmark, as Markdown; means over seeds."""

from collections.abc import Callable, Sequence

import numpy as np

from ks_lottery.evaluation.planted import PLANTED, PlantedRow
from ks_lottery.report.tables import plain
from ks_lottery.ticket.markdown import MISSING, table

FAMILIES = ("Shift", "Runs", "Frozen", "Batches", "Evidence")
FAMILY_NAMES = {
    "Shift": "two checkpoints", "Runs": "repeated training", "Frozen": "learnt masks", "Batches": "batches, one look",
    "Evidence": "nothing",
}  # fmt: skip
Value = Callable[[PlantedRow], float | None]


def mean(rows: Sequence[PlantedRow], value: Value) -> float | None:
    """Mean of a value over the rows that have it; None where none has."""
    values = [one for row in rows if (one := value(row)) is not None]
    return float(np.mean(values)) if values else None


def of_finder(rows: Sequence[PlantedRow], finder: str, case: str | None = None) -> list[PlantedRow]:
    """The rows of a finder, on one case or on all."""
    return [row for row in rows if row.finder == finder and case in (None, row.case)]


def finders_of(rows: Sequence[PlantedRow]) -> list[str]:
    """Finders by what they look at, then by name; the planted ticket is none."""
    looks = {row.finder: row.looks_at for row in rows if row.finder != PLANTED}
    order = {name: number for number, name in enumerate(FAMILIES)}
    return sorted(looks, key=lambda name: (order.get(looks[name], len(order)), name))


def cases_of(rows: Sequence[PlantedRow]) -> list[str]:
    """Cases in the order of the rows."""
    return list(dict.fromkeys(row.case for row in rows))


def precision_table(rows: Sequence[PlantedRow]) -> str:
    """Precision of every finder on every case."""
    cases, finders = cases_of(rows), finders_of(rows)
    header = ["finder", "looks at", *map(plain, cases)]
    lines = []
    for finder in finders:
        own = of_finder(rows, finder)
        looks = FAMILY_NAMES.get(own[0].looks_at, own[0].looks_at)
        values = [mean(of_finder(own, finder, case), lambda row: row.precision) for case in cases]
        lines.append([plain(finder), looks, *map(share, values)])
    chance = [mean([row for row in rows if row.case == case], lambda row: row.density) for case in cases]
    lines.append(["*chance*", "", *(f"*{share(value)}*" for value in chance)])
    return table(header, lines, left=2)


def case_table(rows: Sequence[PlantedRow]) -> str:
    """Everything that was measured on one case, the most precise finder first."""
    header = [
        "finder", "precision", "recall", "IoU", "loss untrained", "loss trained", "over the planted", "seconds",
    ]  # fmt: skip
    names = [name for name in (PLANTED, *finders_of(rows)) if mean(of_finder(rows, name), lambda row: row.precision)
             is not None]  # fmt: skip
    names.sort(key=lambda name: (name != PLANTED, -(mean(of_finder(rows, name), lambda row: row.precision) or 0.0)))
    return table(header, [_case_line(name, of_finder(rows, name)) for name in names])


def reason_table(rows: Sequence[PlantedRow]) -> str:
    """Why a finder has no ticket, and on which cases."""
    reasons: dict[tuple[str, str], dict[str, None]] = {}
    for row in rows:
        if row.reason:
            reasons.setdefault((row.finder, ("**failed** " if row.failed else "") + plain(row.reason)), {})[
                row.case
            ] = None
    lines = [[plain(finder), ", ".join(map(plain, cases)), reason] for (finder, reason), cases in reasons.items()]
    return table(["finder", "cases", "reason"], sorted(lines), left=3)


def share(value: float | None) -> str:
    """A share with two decimals."""
    return MISSING if value is None else f"{value:.2f}"


def short(value: float | None) -> str:
    """A loss or a ratio with two significant digits."""
    return (
        MISSING
        if value is None
        else f"{value:.2g}"
        if value < 100
        else f"{value:.1e}"
        if value >= 1e5
        else f"{value:.0f}"
    )


def _case_line(name: str, rows: Sequence[PlantedRow]) -> list[str]:
    seconds = mean(rows, lambda row: row.seconds)
    return [
        f"**{name}**" if name == PLANTED else plain(name),
        share(mean(rows, lambda row: row.precision)),
        share(mean(rows, lambda row: row.recall)),
        share(mean(rows, lambda row: row.iou)),
        short(mean(rows, lambda row: row.untrained)),
        short(mean(rows, lambda row: row.trained)),
        short(mean(rows, lambda row: row.ratio)),
        MISSING if seconds is None else f"{seconds:.1f}",
    ]
