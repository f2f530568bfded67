"""Rows of data files, and what is said of files that are none."""

from pathlib import Path

import pytest

from ks_lottery.errors import DataError
from ks_lottery.evaluation.tasks.files import read_rows


def write(folder: Path, name: str, content: str) -> Path:
    (folder / name).write_text(content, encoding="utf-8")
    return folder / name


def test_three_forms_of_the_same_rows(tmp_path: Path) -> None:
    expected = [{"a": 'x, "y"', "b": "1"}, {"a": "é", "b": "2"}]
    forms = {
        "rows.csv": 'b,a,c\n1,"x, ""y""",\n2, é ,z\n',
        "rows.tsv": 'a\tb\nx, "y"\t1\né\t2\n',
        "rows.jsonl": '{"a": "x, \\"y\\"", "b": 1}\n{"b": "2", "a": "é", "c": []}\n',
    }
    for name, content in forms.items():
        assert read_rows(write(tmp_path, name, content), ("a", "b")) == expected, name
    assert read_rows(write(tmp_path, "bom.csv", "\ufeffa,b\n1,2\n"), ("a",)) == [{"a": "1"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.txt", "a\n", "rows.txt: only .csv, .tsv and .jsonl are read."),
        ("rows.csv", "a,b\n", "rows.csv has no rows."),
        ("rows.csv", "b,c\n1,2\n", "rows.csv has columns b, c, but no 'a'. Name the right one."),
        ("rows.csv", "a,b\n1,2\n ,2\n", "Row 2 of rows.csv has an empty 'a'. Remove the row."),
        ("rows.csv", "b,a\n1\n", "Row 1 of rows.csv has an empty 'a'."),
        ("rows.jsonl", '{"a": 1}\n{"a": \n', "Line 2 of rows.jsonl is no JSON"),
        ("rows.jsonl", "[1]\n", "Line 1 of rows.jsonl is no JSON object: '[1]"),
    ],
)
def test_files_that_are_refused(name: str, content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_rows(write(tmp_path, name, content), ("a",))
    assert message in str(caught.value)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no file '.*rows.csv'"):
        read_rows(tmp_path / "rows.csv", ("a",))
    (tmp_path / "rows.csv").write_bytes("a\né\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"rows.csv is not UTF-8 .* Save it as UTF-8"):
        read_rows(tmp_path / "rows.csv", ("a",))
