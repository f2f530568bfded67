"""A table as a file: CSV, JSON or Parquet, by suffix; whole or absent."""

import csv
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ks_lottery.checkpoints.writer import atomic_file
from ks_lottery.errors import OptionError

if TYPE_CHECKING:
    from pyarrow import Array

Columns = Mapping[str, Sequence[str] | np.ndarray]

_ROWS_AT_ONCE = 2**16


def table_suffix(path: str | os.PathLike[str]) -> str:
    """The suffix of a table's file.

    Raises:
        OptionError: if it is none of .csv, .json, .parquet.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _WRITERS:
        raise OptionError(f"--table {os.fspath(path)}: the file must end in one of {', '.join(_WRITERS)}.")
    return suffix


def write_table(path: str | os.PathLike[str], parts: Iterable[Columns]) -> None:
    """Write a table that is given in parts, one below the other.

    Numbers are written so that reading gives the same ones. What is NaN, infinite or masked is an empty cell in CSV and
    null elsewhere.

    Args:
        path: the file; its suffix decides on the format. JSON is a list of objects, one per line.
        parts: at least one; name to values: texts, or an array of numbers or truth values. All have the same names.

    Raises:
        OptionError: as `table_suffix`.
        OSError: what the file system says.
    """
    writer = _WRITERS[table_suffix(path)]
    with atomic_file(path) as temporary:
        writer(temporary, (piece for part in parts for piece in _pieces(part)))


def _pieces(part: Columns) -> Iterator[Columns]:
    """A part in pieces of bounded length; at least one, which may be empty."""
    length = len(next(iter(part.values())))
    for start in range(0, max(1, length), _ROWS_AT_ONCE):
        yield {name: values[start : start + _ROWS_AT_ONCE] for name, values in part.items()}


def _rows(piece: Columns) -> Iterator[tuple[Any, ...]]:
    return zip(*(plain_values(values) for values in piece.values()), strict=True)


def plain_values(values: Sequence[Any] | np.ndarray) -> list[Any]:
    """Values of Python; None for NaN, infinity and what is masked."""
    listed = values.tolist() if isinstance(values, np.ndarray) else list(values)
    return [None if isinstance(value, float) and not math.isfinite(value) else value for value in listed]


def _write_csv(path: Path, pieces: Iterator[Columns]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for number, piece in enumerate(pieces):
            if number == 0:
                writer.writerow(piece)
            for row in _rows(piece):
                writer.writerow([str(value).lower() if isinstance(value, bool) else value for value in row])


def _write_json(path: Path, pieces: Iterator[Columns]) -> None:
    with path.open("w", encoding="utf-8") as file:
        separator = "[\n"
        for piece in pieces:
            for row in _rows(piece):
                file.write(separator + json.dumps(dict(zip(piece, row, strict=True)), ensure_ascii=False))
                separator = ",\n"
        file.write("[]\n" if separator == "[\n" else "\n]\n")


def _write_parquet(path: Path, pieces: Iterator[Columns]) -> None:
    from pyarrow import Table
    from pyarrow.parquet import ParquetWriter

    writer = None
    try:
        for piece in pieces:
            table = Table.from_arrays([_arrow(values) for values in piece.values()], names=list(piece))
            writer = writer or ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _arrow(values: Sequence[str] | np.ndarray) -> "Array":
    """A column for pyarrow, put together from its buffers: `pyarrow.array` would import pandas."""
    import pyarrow

    if not isinstance(values, np.ndarray):
        texts = [text.encode() for text in values]
        ends = np.cumsum([0, *map(len, texts)], dtype=np.int64)
        buffers = [None, pyarrow.py_buffer(ends), pyarrow.py_buffer(b"".join(texts))]
        return pyarrow.Array.from_buffers(pyarrow.large_string(), len(texts), buffers)
    known = ~np.ma.getmaskarray(values) & np.isfinite(values)
    content = np.ascontiguousarray(np.ma.getdata(values))
    if content.dtype == bool:
        content = _bits(content)
    kind = pyarrow.from_numpy_dtype(values.dtype)
    return pyarrow.Array.from_buffers(kind, len(values), [pyarrow.py_buffer(_bits(known)), pyarrow.py_buffer(content)])


def _bits(truths: np.ndarray) -> np.ndarray:
    """Eight truth values in a byte, the first one lowest."""
    return np.packbits(truths, bitorder="little")


_WRITERS: dict[str, Callable[[Path, Iterator[Columns]], None]] = {
    ".csv": _write_csv,
    ".json": _write_json,
    ".parquet": _write_parquet,
}
