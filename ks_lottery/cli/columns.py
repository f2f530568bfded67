"""The columns of a comparison, as `--table` and `--json` write them."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ks_lottery.checkpoints.diff import TensorDifference
from ks_lottery.cli.table_file import Columns, plain_values


def parameter_columns(differences: Sequence[TensorDifference]) -> Columns:
    """One row per parameter; NaN or masked where a parameter has no such number."""

    def numbers(values: Iterator[float | None]) -> np.ndarray:
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)

    def counts(values: Iterator[int]) -> np.ndarray:
        return np.array(list(values), dtype=np.int64)

    return {
        "name": [one.pair.name for one in differences],
        "shape": ["x".join(map(str, one.pair.shape)) for one in differences],
        "dtype": [one.pair.dtype for one in differences],
        "values": counts(one.pair.values for one in differences),
        "changed_values": counts(one.changed_values for one in differences),
        "changed_share": numbers(one.changed_share for one in differences),
        "rows": counts(one.pair.rows for one in differences),
        "changed_rows": counts(one.changed_rows for one in differences),
        "statistic": numbers(one.statistic for one in differences),
        "h": np.ma.masked_array(counts(one.h or 0 for one in differences), [one.h is None for one in differences]),
        "shift": numbers(one.shift for one in differences),
        "relative_shift": numbers(one.relative_shift for one in differences),
    }


def unit_columns(differences: Sequence[TensorDifference]) -> Iterator[Columns]:
    """One row per unit, one part per group; `changed` tells whether any bit of the unit differs."""
    for units in (units for one in differences for units in one.units):
        count = units.group.num_units
        yield {
            "granularity": [units.granularity] * count,
            "group": [units.group.name] * count,
            "unit": np.arange(count),
            "statistic": units.statistic,
            "h": units.heights,
            "log_p": units.log_p,
            "shift": units.rows.shift,
            "relative_shift": units.rows.relative_shift,
            "changed": units.rows.changed,
        }


def unit_summaries(differences: Sequence[TensorDifference]) -> list[dict[str, Any]]:
    """One object per group: how many units, how many of them changed, and the largest D."""
    return [
        {
            "granularity": units.granularity,
            "group": units.group.name,
            "units": units.group.num_units,
            "changed": int(units.rows.changed.sum()),
            "largest_statistic": float(units.statistic.max()),
        }
        for one in differences
        for units in one.units
    ]


def records(columns: Columns) -> list[dict[str, Any]]:
    """Rows as objects for JSON; None for what is no number."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*map(plain_values, columns.values()), strict=True)]
