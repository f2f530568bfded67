"""Parts of one matrix that overlap: a weight belongs to its row before its column, to its column before itself."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ks_lottery.adapter.parts import COLUMNS, ENTRIES, ROWS, PartKind
from ks_lottery.adapter.rows import RowChange, find_rows

Positions = Sequence[int] | np.ndarray


def outside(entries: Positions, rows: Positions, columns: Positions, num_columns: int) -> np.ndarray:
    """[n] bool: which single weights lie neither in a chosen row nor in a chosen column.

    Args:
        entries: [n] positions in the flattened matrix.
        rows: chosen rows.
        columns: chosen columns.
        num_columns: of the matrix.
    """
    row, column = np.divmod(np.asarray(entries, dtype=np.int64), num_columns)
    return ~(np.isin(row, np.asarray(rows, dtype=np.int64)) | np.isin(column, np.asarray(columns, dtype=np.int64)))


def without_overlap(changes: Mapping[PartKind, RowChange], num_columns: int) -> dict[PartKind, RowChange]:
    """The same change of a matrix, with each weight in one part.

    Args:
        changes: rows, columns and single weights of one matrix, which may overlap; kinds of other parameters are passed
            through.
        num_columns: of the matrix.

    Returns:
        By kind; single weights in rows and columns are added to those, columns are zero where rows are. Parts that
        become empty are left out.
    """
    found = {kind: RowChange(change.index, change.delta.clone()) for kind, change in changes.items()}
    rows, columns, entries = (found.get(kind) for kind in (ROWS, COLUMNS, ENTRIES))
    if entries is not None:
        row, column = entries.index.to(torch.int64) // num_columns, entries.index.to(torch.int64) % num_columns
        rest = torch.ones(len(row), dtype=torch.bool, device=row.device)
        for slices, along, across in ((rows, row, column), (columns, column, row)):
            if slices is not None:
                slot = find_rows(slices.index, along)
                inside = rest & (slot < len(slices.index))
                slices.delta.index_put_((slot[inside], across[inside]), entries.delta[inside], accumulate=True)
                rest &= ~inside
        found[ENTRIES] = RowChange(entries.index[rest], entries.delta[rest])
    if rows is not None and columns is not None:
        rows.delta[:, columns.index] += columns.delta[:, rows.index].T
        columns.delta[:, rows.index] = 0
    return {kind: change for kind, change in found.items() if len(change.index)}


def columns_outside(columns: RowChange, rows: Tensor) -> RowChange:
    """Changed columns that are left as they are where they cross the given rows."""
    return RowChange(columns.index, columns.delta.index_fill(1, rows, 0.0))
