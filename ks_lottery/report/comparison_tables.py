"""The tables of a comparison, as Markdown."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from ks_lottery.evaluation.record import Record
from ks_lottery.evaluation.sanity import SanityVerdict
from ks_lottery.report.comparison_cells import Row, Table, at_home
from ks_lottery.report.tables import plain
from ks_lottery.stats.intervals import Interval
from ks_lottery.ticket.markdown import MISSING, code, data_size, number, table


def score_table(compared: Table) -> str:
    """One line for each method, density and task: score, size, cost, and what its own shuffle leaves of the score.

    Further scores of the tasks stand beside the main one: of translation, BLEU of the first line and the stop rate.
    """
    further = _further_scores([record for row in compared.rows for record in row.records])
    header = [
        "task", "method", "density asked", "density realised", "runs", "score", *map(plain, further),
        "minus its shuffle", "trained weights", "ticket", "finding: examples forward", "backward", "seconds",
        "training: seconds",
    ]  # fmt: skip
    digits = score_digits([row.score.value for row in compared.rows])
    lines = []
    for row in compared.rows:
        cells = [plain(row.task), *_line(row, digits)]
        means = [row.mean(lambda record, name=name: record.scores.get(name)) for name in further]  # type: ignore[misc]
        lines.append([*cells[:6], *(number(mean, digits) for mean in means), *cells[6:]])
    if len(compared.tasks) == 1:
        return table(header[1:], [line[1:] for line in lines])
    return table(header, lines, left=2)


def _further_scores(records: Sequence[Record]) -> list[str]:
    """Names of scores other than the main one, in the order of the first record that has them."""
    names = dict.fromkeys(name for record in records for name in record.scores)
    return [name for name in names if any(record.scores.get(name, record.score) != record.score for record in records)]


def failed_table(failed: Sequence[Record]) -> str:
    """Cells that crashed, with their errors."""
    lines = [
        [
            plain(one.method), plain(one.units), plain(one.task), share(one.density), str(one.replicate),
            code(" ".join(one.error.split())),
        ]
        for one in failed
    ]  # fmt: skip
    return table(["method", "units", "task", "density", "replicate", "error"], lines, left=6)


def sanity_table(verdicts: Sequence[SanityVerdict]) -> str:
    """Finder minus control over all pairs, and the verdict."""
    digits = score_digits([verdict.mean for verdict in verdicts if verdict.mean is not None])
    lines = [
        [
            plain(one.method), plain(one.units), one.kind, plain(one.control), str(one.pairs), _difference(one, digits),
            f"**{plain(one.verdict)}**" if one.verdict.startswith("fails") else plain(one.verdict),
        ]
        for one in verdicts
    ]  # fmt: skip
    return table(["finder", "units", "kind", "against", "pairs", "finder minus control", "verdict"], lines, left=4)


def transfer_table(records: Sequence[Record]) -> str:
    """Scores of tickets on tasks that they were not found on.

    Args:
        records: finished cells of one kind, granularity and density.

    Returns:
        one line for each finder and task that its tickets were found on, one column for each task; random units, where
        they were run, below each finder. Empty if no ticket was trained on another task.
    """
    travelled = [one.method for one in records if one.role == "finder" and not at_home(one)]
    tasks = list(dict.fromkeys(one.task for one in records))
    random = [one for one in records if one.control == "random"]
    digits = score_digits([one.score for one in records if one.score is not None])
    lines = []
    for method in dict.fromkeys(travelled):
        own = [one for one in records if one.role == "finder" and one.method == method]
        homes = {task: _mean(one for one in own if one.task == one.found_on == task) for task in tasks}
        origins = sorted({one.found_on for one in own}, key=lambda task: (task not in tasks, task))
        blocks = [(origin, [one for one in own if one.found_on == origin]) for origin in origins]
        for origin, found in [*blocks, *([("random units", random)] if random else [])]:
            cells = [
                _transferred(_mean(one for one in found if one.task == task), homes[task], task == origin, digits)
                for task in tasks
            ]
            lines.append([plain(method), plain(origin), *cells])
    return table(["finder", "found on", *map(plain, tasks)], lines, left=2) if lines else ""


def share(density: float | None) -> str:
    """A density in percent, with three significant digits."""
    return MISSING if density is None else f"{100 * density:.3g} %"


def score_digits(scores: Sequence[float]) -> int:
    """Decimals that show scores: three of shares, one of percent and points."""
    return 1 if scores and max(map(abs, scores)) > 1.5 else 3


def with_interval(interval: Interval | None, digits: int, sign: str = "") -> str:
    """A mean with its interval, which is left out where its ends are NaN."""
    if interval is None:
        return MISSING
    shown = [f"{value:{sign},.{digits}f}" for value in interval]
    return shown[0] if math.isnan(interval.low) else f"{shown[0]} [{shown[1]}, {shown[2]}]"


def _line(row: Row, digits: int) -> list[str]:
    ticket = row.role != "reference"
    return [
        plain(row.method),
        share(row.density),
        share(row.mean(lambda one: one.realised)),
        str(len(row.records)),
        with_interval(row.score, digits),
        with_interval(row.gain, digits, "+"),
        number(row.mean(lambda one: one.trainable), 0),
        data_size(row.mean(lambda one: one.ticket_bytes)) if ticket else MISSING,
        number(row.mean(lambda one: one.finding.forward), 0) if ticket else MISSING,
        number(row.mean(lambda one: one.finding.backward), 0) if ticket else MISSING,
        number(row.mean(lambda one: one.finding.seconds)) if ticket else MISSING,
        number(row.mean(lambda one: one.training.seconds)),
    ]


def _difference(verdict: SanityVerdict, digits: int) -> str:
    if verdict.mean is None or verdict.low is None or verdict.high is None:
        return MISSING if verdict.mean is None else f"{verdict.mean:+,.{digits}f}"
    return with_interval(Interval(verdict.mean, verdict.low, verdict.high), digits, "+")


def _mean(records: Iterable[Record]) -> float | None:
    scores = [one.score for one in records if one.score is not None]
    return float(np.mean(scores)) if scores else None


def _transferred(score: float | None, home: float | None, own: bool, digits: int) -> str:
    if score is None:
        return MISSING
    shown = number(score, digits)
    if own:
        return f"**{shown}**"
    return f"{shown} ({100 * score / home:.0f} %)" if home is not None and home > 0 else shown
