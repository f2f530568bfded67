"""The report: a page for people, the numbers as data, and pictures; rebuilt from its own files at any time."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from ks_lottery.checkpoints.redaction import redacted
from ks_lottery.checkpoints.writer import atomic_file
from ks_lottery.errors import DataError
from ks_lottery.report.examples import TranslationExample, examples_from_bytes, examples_to_bytes
from ks_lottery.report.html.document import html_page
from ks_lottery.report.page import BYTES_PICTURE, DOUBTS, SCORE_PICTURE, SHIFT_PICTURE, page
from ks_lottery.report.results import PairedDifference, Result, by_name, with_gains
from ks_lottery.report.token_shift import TokenShift
from ks_lottery.report.translation_figures import figures_of, sections_of

PAGE, HTML_PAGE, DATA = "report.md", "report.html", "results.json"
TOKEN_ROWS, EXAMPLES = "token_rows.safetensors", "examples.json"
_FORMAT = 1
_PICTURES = {"scores": SCORE_PICTURE, "bytes": BYTES_PICTURE, "shift": SHIFT_PICTURE}


@dataclass(frozen=True)
class Report:
    """Everything a report shows.

    Attributes:
        results: rows of the score table, in the order to show.
        ticket: what `ticket_summary` gives, or None.
        token_shift: every token row, for the picture, or None.
        differences: paired intervals of the ticket against its controls.
        examples: test sentences with what some runs made of them; they stand in the HTML page alone.
        title: headline.
        command: what made the results, so that a reader can repeat them.
        meta: facts about the run as JSON values: model, data, languages, seeds, versions, number of test sentences.
        tolerance: BLEU that a winning ticket may lie below full tuning.
    """

    results: Sequence[Result]
    _: KW_ONLY
    ticket: Mapping[str, Any] | None = None
    token_shift: TokenShift | None = None
    differences: Sequence[PairedDifference] = ()
    examples: Sequence[TranslationExample] = ()
    title: str = "Lottery ticket report"
    command: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float = 1.0


def write_report(folder: str | os.PathLike[str], report: Report) -> Path:
    """Write `report.html`, `report.md`, `results.json`, the pictures and their data into a folder.

    `report.html` is one file that needs neither the others nor a network.

    Everything is made before the first file is touched, and each file is replaced as a whole, the page last. Other
    files in the folder stay. Tokens and passwords, as a command may hold them, are replaced by `[hidden]`.

    Args:
        folder: created if there is none.
        report: what to write; shares of the gain are filled in where they are missing.

    Returns:
        path of `report.md`.

    Raises:
        DataError: if there is no result, two have one name, or a value is no JSON value.
    """
    by_name(report.results)
    results = with_gains(report.results)
    text = redacted(page(report, results))
    figures = figures_of(report, results, _PICTURES, _statistic(report))
    contents: dict[str, bytes | None] = {
        TOKEN_ROWS: None if report.token_shift is None else report.token_shift.to_bytes(),
        EXAMPLES: examples_to_bytes(report.examples) if report.examples else None,
        **{name: figures[name].png(tight=True) if name in figures else None for name in _PICTURES.values()},
        DATA: _data(report, results),
        HTML_PAGE: html_page(text, figures, sections_of(report), DOUBTS).encode(),
        PAGE: text.encode(),
    }
    for name, content in contents.items():
        if content is None:
            (Path(folder) / name).unlink(missing_ok=True)
            continue
        with atomic_file(Path(folder) / name) as temporary:
            temporary.write_bytes(content)
    return Path(folder) / PAGE


def read_report(folder: str | os.PathLike[str]) -> Report:
    """Read back what `write_report` wrote.

    Raises:
        DataError: if there is no report, or it is damaged or of an unknown format.
    """
    file = Path(folder) / DATA
    if not file.is_file():
        raise DataError(f"There is no report in {str(folder)!r}: it has no {DATA}.")
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["format"] != _FORMAT:
            raise DataError(
                f"{str(file)!r} has format {data['format']!r}; this version of ks_lottery reads {_FORMAT}. Upgrade "
                "ks_lottery."
            )
        token_rows, examples = Path(folder) / TOKEN_ROWS, Path(folder) / EXAMPLES
        shift = TokenShift.from_bytes(token_rows.read_bytes(), data["token_group"]) if token_rows.is_file() else None
        return Report(
            results=[Result.from_dict(row) for row in data["rows"]],
            ticket=data["ticket"],
            token_shift=shift,
            differences=[PairedDifference(**entry) for entry in data["differences"]],
            examples=examples_from_bytes(examples.read_bytes()) if examples.is_file() else (),
            title=data["title"],
            command=data["command"],
            meta=data["meta"],
            tolerance=data["tolerance"],
        )
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{str(file)!r} is damaged ({error!r}). Run what made it again.") from error


def rebuild_report(folder: str | os.PathLike[str]) -> Path:
    """Write pages and pictures again from the data files of the folder alone; errors as `read_report`."""
    return write_report(folder, read_report(folder))


def _data(report: Report, results: Sequence[Result]) -> bytes:
    data = {
        "format": _FORMAT,
        "title": report.title,
        "command": report.command,
        "meta": dict(report.meta),
        "tolerance": report.tolerance,
        "rows": [result.to_dict() for result in results],
        "differences": [difference.to_dict() for difference in report.differences],
        "ticket": None if report.ticket is None else dict(report.ticket),
        "token_group": None if report.token_shift is None else report.token_shift.group,
    }
    try:
        return (redacted(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise DataError(f"The report cannot be written as JSON: {error}. Give plain numbers and texts.") from error


def _statistic(report: Report) -> str:
    """What the statistic of a row is called."""
    return "D" if report.ticket is None or report.ticket["provenance"]["method"] == "ks" else "statistic"
