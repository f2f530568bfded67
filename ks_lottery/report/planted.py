"""The page of the planted benchmark: tables, pictures, and why finders do not apply; all numbers come from rows."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ks_lottery.checkpoints.writer import atomic_file, write_json
from ks_lottery.errors import DataError
from ks_lottery.evaluation.planted import PlantedRow
from ks_lottery.report.planted_plots import curve_picture, precision_picture
from ks_lottery.report.planted_tables import case_table, cases_of, finders_of, precision_table, reason_table
from ks_lottery.report.tables import meta_table, plain

PAGE, DATA = "planted.md", "planted.json"
_READ = (
    "Each finder chooses as many units as were planted, so precision and recall are one number. *Loss untrained*: of "
    "an update ticket, with the planted move at the chosen units and nowhere else; of a weight ticket, with zeros "
    "everywhere else. *Loss trained*: after a training of the ticket, the same for all. *Over the planted*: that loss "
    "over the planted ticket's. *Seconds*: of finding, trainings included, some of which finders share. Means over "
    "seeds. Chance is the planted density."
)


def write_planted(
    folder: str | os.PathLike[str],
    rows: Sequence[PlantedRow],
    about: Mapping[str, str],
    command: str,
    meta: Mapping[str, Any] | None = None,
) -> Path:
    """Write `planted.md`, `planted.json` and the pictures into a folder.

    Args:
        folder: created if there is none.
        rows: of the benchmark.
        about: case to what is planted in it, in a few words.
        command: what made the rows.
        meta: facts about the run.

    Returns:
        path of the page.

    Raises:
        DataError: if there is no row of a finder.
    """
    if not finders_of(rows):
        raise DataError("There is no row of a finder to report. Run the benchmark first.")
    pictures = {"precision.png": precision_picture(rows)}
    parts = ["# Planted tickets: who finds them?", f"Made by:\n\n```\n{command}\n```"]
    parts += [meta_table(meta)] if meta else []
    parts += ["## Precision", precision_table(rows), "![Precision of every finder on every case](precision.png)", _READ]
    for case in cases_of(rows):
        here = [row for row in rows if row.case == case]
        one = here[0]
        planted = f"{one.count:,} of {one.total:,} units ({one.units}; {one.kind} ticket): {about.get(case, case)}."
        parts += [f"## {plain(case)[:1].upper()}{plain(case)[1:]}", planted, case_table(here)]
        if any(row.curve for row in here):
            file = f"{case.replace(' ', '-')}.png"
            pictures[file] = curve_picture(here)
            parts.append(f"![Precision against density, {case}]({file})")
    if any(row.reason for row in rows):
        parts += ["## Where finders do not apply", reason_table(rows)]
    for name, picture in pictures.items():
        with atomic_file(Path(folder) / name) as temporary:
            temporary.write_bytes(picture)
    write_json(Path(folder) / DATA, {"command": command, "rows": [row.to_dict() for row in rows]})
    with atomic_file(Path(folder) / PAGE) as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return Path(folder) / PAGE
