"""One table, three formats: what is read back is what was written."""

import csv
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ks_lottery.cli import table_file
from ks_lottery.cli.table_file import Columns, table_suffix, write_table
from ks_lottery.errors import OptionError

SUFFIXES = (".csv", ".json", ".parquet")


def read(path: Path, example: Columns) -> list[dict[str, Any]]:
    """Rows of a table; those of CSV get the types of the example's columns."""
    if path.suffix == ".json":
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return rows
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()

    def typed(name: str, text: str) -> Any:
        values = example[name]
        kind = values.dtype.kind if isinstance(values, np.ndarray) else "U"
        if kind == "U":
            return text
        return None if text == "" else {"b": json.loads, "i": int, "f": float}[kind](text)

    with path.open(encoding="utf-8", newline="") as file:
        return [{name: typed(name, text) for name, text in row.items()} for row in csv.DictReader(file)]


@settings(deadline=None, max_examples=50)
@given(
    rows=st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=5),
            st.integers(-(2**63), 2**63 - 1),
            st.floats(),
            st.booleans(),
            st.none() | st.integers(0, 9),
        ),
        max_size=8,
    ),
    at_once=st.integers(1, 9),
)
def test_every_format_gives_back_every_value(
    rows: list[tuple[Any, ...]], at_once: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(5)]
    part: Columns = {
        "text": columns[0],
        "whole": np.array(columns[1], dtype=np.int64),
        "number": np.array(columns[2], dtype=np.float64),
        "truth": np.array(columns[3], dtype=bool),
        "count": np.ma.masked_array(
            np.array([count or 0 for count in columns[4]], dtype=np.int64), [count is None for count in columns[4]]
        ),
    }
    expected = [
        {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in zip(part, row, strict=True)}
        for row in rows
    ]
    folder = tmp_path_factory.mktemp("tables")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_file, "_ROWS_AT_ONCE", at_once)
        for suffix in SUFFIXES:
            write_table(folder / f"x{suffix}", [part])
            assert read(folder / f"x{suffix}", part) == expected
    assert sorted(os.listdir(folder)) == ["x.csv", "x.json", "x.parquet"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_parts_stand_below_each_other(tmp_path: Path, suffix: str) -> None:
    parts: list[Columns] = [
        {"group": [name] * count, "unit": np.arange(count)} for name, count in (("a", 2), ("empty", 0), ("b", 1))
    ]
    write_table(tmp_path / f"x{suffix}", iter(parts))
    assert [tuple(row.values()) for row in read(tmp_path / f"x{suffix}", parts[0])] == [("a", 0), ("a", 1), ("b", 0)]


def test_suffixes_are_checked() -> None:
    assert [table_suffix(name) for name in ("a.CSV", "b.json", "c.d.parquet")] == list(SUFFIXES)
    with pytest.raises(OptionError, match=r"--table x.xlsx: the file must end in one of .csv, .json, .parquet."):
        table_suffix("x.xlsx")
    with pytest.raises(OptionError, match=r"--table rows: the file must end in"):
        write_table("rows", [])


def test_an_error_while_writing_leaves_what_was_there(tmp_path: Path) -> None:
    def parts() -> Any:
        yield {"unit": np.arange(3)}
        raise OSError(28, "No space left on device")

    for suffix in SUFFIXES:
        path = tmp_path / f"x{suffix}"
        path.write_text("old")
        with pytest.raises(OSError, match="No space left"):
            write_table(path, parts())
        assert path.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["x.csv", "x.json", "x.parquet"]
