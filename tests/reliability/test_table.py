"""Every test that docs/reliability.md names is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows() -> list[list[str]]:
    """Cells of all rows of the page's tables, without their heads."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    return [row for row in cells if row[0] != "fault" and not set(row[0]) <= {"-"}]


def named() -> list[tuple[str, str]]:
    """File and name of every test on the page."""
    return NAMED.findall(PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("file", "name"), sorted(set(named())))
def test_a_test_that_the_page_names_is_there(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_row_names_a_test() -> None:
    assert len(rows()) >= 20
    for row in rows():
        assert len(row) == 4, row
        assert NAMED.search(row[3]), row


def test_every_fault_is_on_the_page() -> None:
    faults = " ".join(row[0] for row in rows())
    for fault in ("kill -9", "full disk", "read-only", "network", "damaged", "two processes", "rank"):
        assert fault in faults, fault


def test_every_test_of_faults_is_named() -> None:
    here = Path(__file__).parent
    files = [file for file in sorted(here.glob("test_*.py")) if file != Path(__file__)]
    there = {
        (f"tests/reliability/{file.name}", node.name)
        for file in files
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert there <= set(named()), sorted(there - set(named()))
