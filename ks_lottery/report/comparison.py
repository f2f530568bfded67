"""The page of a comparison: tables, sanity verdicts, pictures, and what to doubt; all numbers come from records."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ks_lottery.checkpoints.redaction import redacted
from ks_lottery.checkpoints.writer import atomic_file, write_json
from ks_lottery.errors import DataError
from ks_lottery.evaluation.record import Record
from ks_lottery.evaluation.sanity import SanityVerdict, beats
from ks_lottery.report.comparison_cells import Table, check_records, tables_of
from ks_lottery.report.comparison_figures import overlap_figure, table_figures
from ks_lottery.report.comparison_plots import overlap_picture
from ks_lottery.report.comparison_tables import (
    failed_table,
    sanity_table,
    score_digits,
    score_table,
    share,
    transfer_table,
)
from ks_lottery.report.html.document import html_page
from ks_lottery.report.html.figure import Figure
from ks_lottery.report.tables import meta_table, plain
from ks_lottery.ticket.markdown import number

PAGE, HTML_PAGE, DATA = "comparison.md", "comparison.html", "comparison.json"
_FORMAT = 1
_OWN_CONTROLS = ("shuffled", "inverted", "random")
_OVERLAP_FIELDS = (
    "units", "density", "kind", "first", "second", "first_replicate", "second_replicate", "task", "jaccard", "chance",
)  # fmt: skip
_SANITY = (
    "A pair is a finder and its control with the same units, task, density and replicate, the ticket found on that "
    "task. Intervals are Student's t intervals (95 %) of the mean over all pairs, tasks and densities together, taken "
    "as independent. *Passes*: the whole interval lies above 0. *Shuffled*: as many units in each group, others. "
    "*Inverted*: the units that the finder puts last. *Random*: units by chance."
)
_OVERLAP = (
    "Jaccard index: shared units over all units of two tickets of one density, mean over tasks and replicates. On the "
    "diagonal: two replicates of the same finder, which is the most that any other finder can be expected to share "
    "with it. Chance: two random tickets of that density."
)
_TRANSFER = (
    "Rows: the task that a ticket was found on. Columns: the task that it was trained and scored on. Bold: a task's "
    "own ticket, to which the percentages in its column relate. A ticket that is found elsewhere and does no better "
    "than random units has carried nothing over. Means over replicates."
)
_CAVEATS = (
    "**Compare at equal density of the same units only.** Units of different granularities differ in size.",
    "**The front is drawn through means.** Where intervals overlap, another run may draw another front.",
    "**Seconds depend on the machine**; examples forward and backward do not, and every finder's count includes all "
    "that it needs, such as a probe or rounds of training.",
    "**Intervals cover replicates**: the seed of finding, of the data's order and of draws. Neither other test "
    "examples nor other tasks nor other base models are in them.",
    "**Many finders are compared.** Some pass by chance where there are many; an interval is for each by itself.",
)


def write_comparison(
    folder: str | os.PathLike[str],
    records: Sequence[Record],
    overlaps: Sequence[Mapping[str, Any]] = (),
    meta: Mapping[str, Any] | None = None,
    command: str | None = None,
) -> Path:
    """Write `comparison.html`, `comparison.md`, `comparison.json` and the pictures into a folder.

    `comparison.html` is one file that needs neither the others nor a network.

    Everything is made before the first file is touched, and each file is replaced as a whole, the page last.

    Args:
        folder: created if there is none.
        records: finished and failed cells.
        overlaps: one dict for each two tickets: `units`, `density`, `kind`, `first` and `second` (methods),
            `first_replicate`, `second_replicate`, `task`, `jaccard`, `chance`.
        meta: facts about the run as JSON values.
        command: what made the records, so that a reader can repeat them.

    Returns:
        path of `comparison.md`.

    Raises:
        DataError: if there is no record, two are the same cell, one has neither score nor error or a score that is NaN
            or infinite, or an overlap lacks a field.
    """
    check_records(records)
    for entry in overlaps:
        lacking = [name for name in _OVERLAP_FIELDS if name not in entry]
        if lacking:
            raise DataError(f"An overlap lacks {', '.join(lacking)}; it has {sorted(entry)}. Give all of its fields.")
    tables = tables_of(records)
    verdicts = sanity_verdicts(records)
    pictures, figures = _pictures_and_figures(tables, overlaps)
    command = None if command is None else redacted(command)
    page = redacted(_page(records, tables, verdicts, overlaps, meta or {}, command))
    html = html_page(page, figures)
    data = {
        "format": _FORMAT,
        "command": command,
        "meta": dict(meta or {}),
        "records": [record.to_dict() for record in records],
        "overlaps": [dict(entry) for entry in overlaps],
        "verdicts": [verdict.to_dict() for verdict in verdicts],
    }
    for name, picture in pictures.items():
        with atomic_file(Path(folder) / name) as temporary:
            temporary.write_bytes(picture)
    write_json(Path(folder) / DATA, data)
    for name, text in ((HTML_PAGE, html), (PAGE, page)):
        with atomic_file(Path(folder) / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return Path(folder) / PAGE


def sanity_verdicts(records: Sequence[Record]) -> list[SanityVerdict]:
    """Verdicts of every finder against its shuffle, its inversion, random units, and further controls that were run."""
    further = {record.control for record in records if record.role == "control"} - {"", *_OWN_CONTROLS}
    everything = [verdict for control in (*_OWN_CONTROLS, *sorted(further)) for verdict in beats(records, control)]
    return [verdict for verdict in everything if verdict.pairs or verdict.control in _OWN_CONTROLS]


def _page(
    records: Sequence[Record],
    tables: Sequence[Table],
    verdicts: Sequence[SanityVerdict],
    overlaps: Sequence[Mapping[str, Any]],
    meta: Mapping[str, Any],
    command: str | None,
) -> str:
    parts = ["# Comparison of ticket finders", _summary(records, verdicts)]
    if command is not None:
        parts.append(f"Made by:\n\n```\n{command}\n```")
    if meta:
        parts.append(meta_table(meta))
    for compared in tables:
        parts += _table_section(compared, [entry for entry in overlaps if _place_of(entry) == _place(compared)])
        parts += _transfer_section(compared, records)
    failed = [record for record in records if record.error]
    if failed:
        parts += ["## Cells that failed", failed_table(failed)]
    if verdicts:
        parts += ["## Does it beat its controls?", sanity_table(verdicts), _SANITY]
    parts += ["## Before you believe this", "\n".join(f"- {caveat}" for caveat in _CAVEATS)]
    return "\n\n".join(parts) + "\n"


def _summary(records: Sequence[Record], verdicts: Sequence[SanityVerdict]) -> str:
    failed = sum(bool(record.error) for record in records)
    counts = f"{len(records) - failed:,} finished cells" + (f", {failed:,} failed" if failed else "")
    shuffles = [verdict for verdict in verdicts if verdict.control == "shuffled"]
    if not shuffles:
        return f"{counts}; no finder among them."
    passed = [f"{plain(one.method)} ({plain(one.units)}, {one.kind})" for one in shuffles if one.passes]
    unknown = sum(one.verdict.startswith("unknown") for one in shuffles)
    text = f"{counts}. **{len(passed)} of {len(shuffles)} finders beat their own shuffles**"
    text += f": {', '.join(passed)}." if passed else "."
    text += f" Of {unknown} it is not known." if unknown else ""
    others = dict.fromkeys(one.control for one in verdicts if one.control != "shuffled" and one.pairs)
    beaten = {control: [one.passes for one in verdicts if one.control == control and one.pairs] for control in others}
    tallies = [f"{plain(control)}: {sum(passes)} of {len(passes)}" for control, passes in beaten.items()]
    return f"{text}\n\nFinders that beat their other controls: {'; '.join(tallies)}." if tallies else text


def _table_section(compared: Table, overlaps: Sequence[Mapping[str, Any]]) -> list[str]:
    parts = [f"## {compared.kind.capitalize()} tickets of {plain(compared.units)}", score_table(compared)]
    parts.append(_how_to_read(compared))
    if any(row.role != "reference" for row in compared.rows):
        parts.append(f"![Score against density]({_file(compared, 'density')})")
        parts.append(f"![Score against cost]({_file(compared, 'cost')})")
    if overlaps:
        parts += ["### Overlap", f"![Overlap]({_file(compared, 'overlap')})", _OVERLAP]
    return parts


def _how_to_read(compared: Table) -> str:
    columns = (
        "*Density realised*: weights of the ticket over all weights of its unit groups. *Minus its shuffle*: score "
        "less that of the same finder's shuffled ticket, over common replicates. *Finding* includes all that the "
        "finder needs."
    )
    if not compared.pooled:
        return f"No row has two runs, so there are no intervals. {columns}"
    digits = 1 + score_digits([row.score.value for row in compared.rows])
    deviations = ", ".join(
        f"{number(deviation, digits)} of {role}s ({freedom} degrees of freedom)"
        for role, (deviation, freedom) in compared.pooled.items()
    )
    return (
        "Square brackets hold Student's t intervals (95 %) of the mean over runs. One row's few runs cannot tell how "
        f"far they scatter, so their standard deviation is pooled over all rows of a role: {deviations}. That of the "
        f"differences is pooled over finders. {columns}"
    )


def _transfer_section(compared: Table, records: Sequence[Record]) -> list[str]:
    parts: list[str] = []
    here = [one for one in records if (one.kind, one.units) == _place(compared) and one.score is not None]
    for density in sorted({one.density for one in here if one.density is not None}, reverse=True):
        shown = transfer_table([one for one in here if one.density == density and one.role != "reference"])
        if shown:
            parts += [f"### Transfer at density {share(density)}", shown]
    return [*parts, _TRANSFER] if parts else []


def _pictures_and_figures(
    tables: Sequence[Table], overlaps: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, bytes], dict[str, Figure]]:
    """The PNG files, and what the HTML page shows in their places."""
    pictures: dict[str, bytes] = {}
    figures: dict[str, Figure] = {}
    for compared in tables:
        if any(row.role != "reference" for row in compared.rows):
            drawn = table_figures(compared, {what: _file(compared, what) for what in ("density", "cost")})
            pictures |= {name: picture.png() for name, picture in drawn.items()}
            figures |= drawn
        here = [entry for entry in overlaps if _place_of(entry) == _place(compared)]
        if here:
            pictures[_file(compared, "overlap")] = overlap_picture(here)
            figures[_file(compared, "overlap")] = overlap_figure(here)
    return pictures, figures


def _file(compared: Table, what: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{compared.kind}-{compared.units}-{what}") + ".png"


def _place(compared: Table) -> tuple[str, str]:
    return compared.kind, compared.units


def _place_of(overlap: Mapping[str, Any]) -> tuple[str, str]:
    return overlap["kind"], overlap["units"]
