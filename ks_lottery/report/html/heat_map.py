"""Units by layer as a table of colours, which is a table to those who cannot see colours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ks_lottery.errors import DataError
from ks_lottery.report.html.templating import template


@dataclass(frozen=True)
class Cell:
    """One unit.

    Attributes:
        value: decides the colour; None leaves the place empty.
        text: in the cell; short.
        note: everything that is known of the unit.
        chosen: whether it is framed.
    """

    value: float | None
    text: str
    note: str
    chosen: bool = False


@dataclass(frozen=True)
class HeatMap:
    """Rows of cells, all rows of one length.

    Attributes:
        title: above the table.
        rows: name of each row (a layer) and its cells.
        corner: what the rows are.
        columns: name of each column.
        ends: what the palest and the strongest colour mean.
        chosen: what a frame means.

    Raises:
        DataError: if there is no row, a row has another length than `columns`, or a value is infinite or NaN.
    """

    title: str
    rows: Sequence[tuple[str, Sequence[Cell]]]
    corner: str
    columns: Sequence[str]
    ends: tuple[str, str]
    chosen: str = "in the ticket"

    def __post_init__(self) -> None:
        wrong = {row: len(cells) for row, cells in self.rows if len(cells) != len(self.columns)}
        if wrong or not self.rows:
            raise DataError(
                f"The heat map {self.title!r} has {len(self.columns)} columns and rows of other lengths: {wrong}. Give "
                "at least one row, and None for values that are missing."
            )
        for row, cells in self.rows:
            for number, cell in enumerate(cells):
                if cell.value is not None and not math.isfinite(cell.value):
                    raise DataError(
                        f"The heat map {self.title!r} has {cell.value} in row {row!r}, column "
                        f"{self.columns[number]!r}. Leave out what was not measured (None)."
                    )

    def html(self, name: str) -> Markup:
        """A grid; arrow keys move in it."""
        values = [cell.value for _, cells in self.rows for cell in cells if cell.value is not None]
        low, high = (min(values), max(values)) if values else (0.0, 0.0)
        first = next(((r, c) for r, (_, cells) in enumerate(self.rows) for c, cell in enumerate(cells)
                      if cell.value is not None), None)  # fmt: skip
        rows = [
            (row, [_shown(cell, low, high, (number, column) == first) for column, cell in enumerate(cells)])
            for number, (row, cells) in enumerate(self.rows)
        ]
        return template(
            "heat_map.html", name=name, title=self.title, corner=self.corner, columns=self.columns, rows=rows,
            low=self.ends[0], high=self.ends[1], chosen=self.chosen,
        )  # fmt: skip


def _shown(cell: Cell, low: float, high: float, first: bool) -> dict[str, object] | None:
    if cell.value is None:
        return None
    share = 0.0 if high <= low else (cell.value - low) / (high - low)
    return {"share": share, "text": cell.text, "note": cell.note, "chosen": cell.chosen, "first": first}
