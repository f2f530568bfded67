"""The report of a classification run: rows, paired differences, the page, the numbers as data, the pictures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classification_heads import KS_HEADS, MAGNITUDE_HEADS, HeadTickets
from classification_page import page
from classification_pictures import head_figure, head_picture, score_figure

from ks_lottery.checkpoints.redaction import redacted
from ks_lottery.checkpoints.writer import atomic_file
from ks_lottery.evaluation.classification import CLASS_METRICS, ClassificationScores
from ks_lottery.report.html.document import html_page
from ks_lottery.report.html.figure import Figure
from ks_lottery.report.results import FULL_TUNING

FROZEN_ENCODER = "frozen encoder"
_FORMAT = 1


@dataclass(frozen=True)
class Tested:
    """A method with its scores on the test set.

    Attributes:
        name: row of the table.
        scores: on the test set.
        trained: what its training cost and chose.
    """

    name: str
    scores: ClassificationScores
    trained: Mapping[str, Any]


def write_classification_report(
    folder: Path, tested: Sequence[Tested], found: HeadTickets, command: str, meta: Mapping[str, Any]
) -> Path:
    """Write `report.html`, `report.md`, `results.json`, `scores.png` and `heads.png`.

    Everything is made before the first file is touched, and each file is replaced as a whole, the page last.

    Args:
        folder: created if there is none.
        tested: rows of the table, in order.
        found: tickets and scores of all heads.
        command: that made the run.
        meta: facts about it.

    Returns:
        path of `report.md`.
    """
    return write_pages(folder, report_data(tested, found, command, meta))


def write_pages(folder: Path, report: Mapping[str, Any]) -> Path:
    """Write pages, numbers and pictures out of what `results.json` holds; returns the path of `report.md`."""
    text, tickets = page(report), (KS_HEADS, MAGNITUDE_HEADS)
    scores = score_figure(report["rows"])
    figures: dict[str, Figure] = {"scores.png": scores, "heads.png": head_figure(report["heads"], tickets)}
    contents = {
        "scores.png": scores.png(),
        "heads.png": head_picture(report["heads"], tickets),
        "results.json": (json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(),
        "report.html": html_page(text, figures).encode(),
        "report.md": text.encode(),
    }
    for name, content in contents.items():
        with atomic_file(folder / name) as temporary:
            temporary.write_bytes(content)
    return folder / "report.md"


def report_data(tested: Sequence[Tested], found: HeadTickets, command: str, meta: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the report shows, as JSON values: what `results.json` holds and the page is made of."""
    named = {method.name: method for method in tested}
    return {
        "format": _FORMAT,
        "title": "Attention-head tickets",
        "command": redacted(command),
        "meta": dict(meta),
        "rows": [_row(method, named[FROZEN_ENCODER], named[FULL_TUNING]) for method in tested],
        "differences": [
            _difference(named[one], other)
            for one in (KS_HEADS, MAGNITUDE_HEADS)
            for other in tested
            if other.name != one
        ],
        "tickets": {
            name: {
                "fingerprint": ticket.fingerprint,
                "method": ticket.provenance.method,
                "heads": len(ticket),
                "of": sum(selection.group.num_units for selection in ticket.selections.values()),
                "weights": ticket.num_trainable(),
                "density": ticket.density("model"),
                "by_group": {group: len(selection) for group, selection in ticket.selections.items()},
                "shared_with_ks": _shared(found, name),
            }
            for name, ticket in found.tickets.items()
        },
        "heads": [dict(head) for head in found.heads],
    }


def _row(method: Tested, base: Tested, full: Tested) -> dict[str, Any]:
    """One row of the table; None where nothing was measured."""
    scores, trained = method.scores, method.trained
    intervals = {metric: scores.interval(metric) for metric in CLASS_METRICS}
    gain = full.scores.accuracy - base.scores.accuracy
    recovered = None if method.name == base.name or gain <= 0 else (scores.accuracy - base.scores.accuracy) / gain
    return {
        "name": method.name,
        **{metric: getattr(scores, metric) for metric in CLASS_METRICS},
        **{f"{metric}_interval": [interval.low, interval.high] for metric, interval in intervals.items()},
        "gain_recovered": recovered,
        "trainable": trained.get("trainable"),
        "adapter_bytes": trained.get("adapter_bytes"),
        "learning_rate": trained.get("rate"),
        "tried_learning_rates": trained.get("tries"),
        "rate_at_edge": trained.get("at_edge", False),
        "dev_accuracy": trained.get("dev_accuracy"),
        "steps": trained.get("steps"),
        "seconds": trained.get("seconds"),
        "peak_memory": trained.get("peak_bytes"),
    }


def _difference(one: Tested, other: Tested) -> dict[str, Any]:
    """Scores of one method minus those of another, with paired bootstrap intervals."""
    found = {metric: one.scores.difference(other.scores, metric) for metric in CLASS_METRICS}
    values: dict[str, Any] = {
        metric: [float(difference.value), difference.low, difference.high] for metric, difference in found.items()
    }
    return {"of": one.name, "against": other.name, **values}


def _shared(found: HeadTickets, name: str) -> int:
    return sum(KS_HEADS in head["in"] and name in head["in"] for head in found.heads)
