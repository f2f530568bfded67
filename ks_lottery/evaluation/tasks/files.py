"""Rows of a data file, by column names."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ks_lottery.errors import DataError

_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def read_rows(file: str | Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read some columns of a file.

    Args:
        file: .csv or .tsv with a line of column names, or .jsonl with one object a line; UTF-8.
        columns: names of the columns that are wanted.

    Returns:
        per row, column to text without white space around it.

    Raises:
        DataError: if the file is missing, of another kind, empty or no UTF-8, or a row lacks a column or has an empty
            field; with the row.
    """
    path = Path(file)
    if not path.is_file():
        raise DataError(f"There is no file {str(path)!r}.")
    if path.suffix not in (*_DELIMITERS, ".jsonl"):
        raise DataError(f"{path.name}: only .csv, .tsv and .jsonl are read.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            given = _objects(lines, path.name) if path.suffix == ".jsonl" else _table(lines, _DELIMITERS[path.suffix])
            rows = [_checked(row, columns, number, path.name) for number, row in enumerate(given, 1)]
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8 ({error}). Save it as UTF-8.") from error
    if not rows:
        raise DataError(f"{path.name} has no rows.")
    return rows


def _table(lines: Iterable[str], delimiter: str) -> Iterator[Mapping[str, Any]]:
    if delimiter == "\t":
        yield from csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        yield from csv.DictReader(lines)


def _objects(lines: Iterable[str], name: str) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"Line {number} of {name} is no JSON ({error}). Write one object a line.") from error
        if not isinstance(row, dict):
            raise DataError(f"Line {number} of {name} is no JSON object: {line[:60]!r}.")
        yield row


def _checked(row: Mapping[str, Any], columns: Sequence[str], number: int, name: str) -> dict[str, str]:
    for column in columns:
        if column not in row:
            raise DataError(f"{name} has columns {', '.join(map(str, row))}, but no {column!r}. Name the right one.")
        if row[column] is None or not str(row[column]).strip():
            raise DataError(f"Row {number} of {name} has an empty {column!r}. Remove the row.")
    return {column: str(row[column]).strip() for column in columns}
