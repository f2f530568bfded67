"""The figures of a translation report's HTML page: drawings with notes, and translations side by side."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ks_lottery.report.html.figure import Section
from ks_lottery.report.html.picture import Notes, Picture
from ks_lottery.report.html.side_by_side import SideBySide
from ks_lottery.report.plots import (
    OTHER_ROWS,
    TICKET_ROWS,
    rows_shown,
    score_drawing,
    token_shift_drawing,
)
from ks_lottery.report.results import BASE, FULL_TUNING, METRICS, PARTIAL_TUNING, Result
from ks_lottery.report.size_plot import bytes_drawing, saved
from ks_lottery.report.token_shift import TokenShift
from ks_lottery.ticket.markdown import data_size, number

if TYPE_CHECKING:
    from ks_lottery.report.report import Report

_SHOWN_TEXTS = {"bleu_whole": "whole continuation", "bleu_first_line": "first line"}
_SIDE_BY_SIDE = (BASE, FULL_TUNING, PARTIAL_TUNING)
_ABOUT_EXAMPLES = (
    "Sentences at equal distances in the test set, chosen by place alone. What each run wrote is shown whole; the "
    "first line, which is scored alone too, is marked, and whatever follows is pale."
)


def figures_of(report: "Report", results: Sequence[Result], names: Mapping[str, str], label: str) -> dict[str, Picture]:
    """Every figure of the page.

    Args:
        report: what to show.
        results: its results.
        names: file names of the pictures by what they show: "scores", "bytes", "shift".
        label: what the statistic of a row is called.

    Returns:
        figures by file name.
    """
    figures: dict[str, Picture] = {names["scores"]: _scores(results)}
    if len(saved(results)) > 1:
        figures[names["bytes"]] = _bytes(results)
    if report.token_shift is not None:
        rows = [] if report.ticket is None else report.ticket["rows"]
        figures[names["shift"]] = _shift(report.token_shift, rows, label)
    return figures


def sections_of(report: "Report") -> list[Section]:
    """Parts that the Markdown page does not have: the examples."""
    if not report.examples:
        return []
    written = {name for example in report.examples for name in example.written}
    methods = [name for name in _SIDE_BY_SIDE if name in written]
    return [Section("Translations", _ABOUT_EXAMPLES, SideBySide(report.examples, methods or sorted(written)))]


def _scores(results: Sequence[Result]) -> Picture:
    notes: dict[str, Notes] = {}
    for metric in METRICS:
        for place, one in enumerate(results):
            score, interval = getattr(one, metric), getattr(one, f"{metric}_interval")
            if score is not None:
                within = "" if interval is None else f" [{number(interval[0])}, {number(interval[1])}]"
                notes[f"{metric}-{place}"] = f"{one.name}\nBLEU, {_SHOWN_TEXTS[metric]}: {number(score)}{within}"
    return Picture(
        score_drawing(results), "Scores with bootstrap intervals over test sentences",
        "Two bars for each run: BLEU of the whole continuation and of its first line. The table above has the numbers.",
        notes,
    )  # fmt: skip


def _bytes(results: Sequence[Result]) -> Picture:
    notes = {
        f"saved-{place}": f"{one.name}\n{data_size(one.adapter_bytes)}, BLEU {number(one.bleu_whole)}"
        + ("" if one.trainable is None else f"\n{one.trainable:,} trained weights")
        for place, one in enumerate(saved(results))
    }
    return Picture(
        bytes_drawing(results), "Score against the size of what was saved",
        "A mark for each run. The tables have the numbers.", notes, tuple(notes),
    )  # fmt: skip


def _shift(shift: TokenShift, rows: Sequence[Mapping[str, Any]], label: str) -> Picture:
    chosen, others = rows_shown(shift, rows)
    known = {row["id"]: row for row in rows if row["group"] == shift.group}

    def note(row: int) -> str:
        token = known.get(row, {}).get("token") or (None if shift.tokens is None else shift.tokens[row])
        lines = [
            f"row {row}" if token is None else f"{token} (row {row})",
            f"{label} {shift.statistic[row]:.4f}",
            f"{shift.count[row]:,} occurrences",
        ]
        if row in known:
            more = known[row]
            lines += [
                f"shift / row norm {number(more['relative_shift'], 3)}, log10 p {number(more['log10_p'], 2)}",
                "in the ticket",
            ]
        return "\n".join(lines)

    return Picture(
        token_shift_drawing(shift, rows, label), f"{label} of every token row against how often its token occurs",
        f"{len(chosen)} rows of the ticket and the {len(others):,} others that moved most. The table above lists the "
        "ticket's.",
        {OTHER_ROWS: [note(row) for row in others.tolist()], TICKET_ROWS: [note(row) for row in chosen.tolist()]},
        (TICKET_ROWS,),
    )  # fmt: skip
