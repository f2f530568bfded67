"""The page of the planted benchmark says what its rows say."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ks_lottery.errors import DataError
from ks_lottery.evaluation.planted import PLANTED
from ks_lottery.report.planted import write_planted
from ks_lottery.report.planted_plots import curve_picture, precision_picture
from ks_lottery.report.planted_tables import case_table, finders_of, precision_table, short
from tests.evaluation.planted_rows import example_rows

PNG = b"\x89PNG\r\n\x1a\n"


def test_tables_hold_means_over_seeds() -> None:
    rows = example_rows()
    lines = precision_table(rows).splitlines()
    assert lines[0] == "| finder | looks at | rows | relu |"
    assert "| magnitude | two checkpoints | 1.00 | 1.00 |" in lines
    assert "| gem\\_miner | learnt masks | 0.45 | 0.45 |" in lines
    assert "| snip | batches, one look | — | — |" in lines
    assert lines[-1] == "| *chance* |  | *0.05* | *0.00* |"
    assert finders_of(rows) == ["magnitude", "imp", "gem_miner", "snip", "random"]
    case = case_table([row for row in rows if row.case == "rows"]).splitlines()
    assert [line.split("|")[1].strip() for line in case[2:]] == [f"**{PLANTED}**", "magnitude", "gem\\_miner", "random"]
    assert case[3] == "| magnitude | 1.00 | 1.00 | 1.00 | 0.5 | 0.02 | 2 | 1.5 |"


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "—"), (0.01234, "0.012"), (3.21, "3.2"), (4321.0, "4321"), (2e6, "2.0e+06")]
)
def test_numbers(value: float | None, shown: str) -> None:
    assert short(value) == shown


def test_the_page(tmp_path: Path) -> None:
    rows = example_rows()
    path = write_planted(tmp_path, rows, {"rows": "some rows"}, "ks-lottery bench-planted", {"seeds": "0, 1"})
    page = path.read_text(encoding="utf-8")
    assert "```\nks-lottery bench-planted\n```" in page
    assert "13 of 256 units (matrix_rows; update ticket): some rows." in page
    assert "| imp | rows, relu | **failed** ZeroDivisionError: an accident |" in page
    assert "| snip | rows, relu | Finder 'snip' finds weight \\| tickets. |" in page
    assert len(json.loads((tmp_path / "planted.json").read_text())["rows"]) == len(rows)
    for name in ("precision.png", "rows.png", "relu.png"):
        assert f"({name})" in page
        assert (tmp_path / name).read_bytes().startswith(PNG)


def test_a_page_without_curves_or_reasons(tmp_path: Path) -> None:
    rows = [replace(row, curve=()) for row in example_rows() if not row.reason]
    page = write_planted(tmp_path, rows, {}, "command").read_text(encoding="utf-8")
    assert "do not apply" not in page
    assert not (tmp_path / "rows.png").exists()
    with pytest.raises(DataError, match="no row of a finder"):
        write_planted(tmp_path, [row for row in rows if row.finder == PLANTED], {}, "command")


def test_pictures_are_the_same_each_time() -> None:
    rows = example_rows()
    assert precision_picture(rows) == precision_picture(rows)
    here = [row for row in rows if row.case == "rows"]
    assert curve_picture(here) == curve_picture(here)
    one = [replace(row, curve=row.curve[:1]) for row in here if row.finder == "magnitude"]
    assert curve_picture(one).startswith(PNG)  # a single density
