"""Every finished cell of the study as a row of one table."""

import json
from pathlib import Path
from typing import Any

from ks_lottery.checkpoints.writer import atomic_file
from replication.plan import Plan

_PLACE = ("direction", "seed", "name", "more")


def write_parquet(plan: Plan, file: Path) -> int:
    """Write `results.parquet`.

    Columns: `cell` (the run directory), `kind`, `direction`, `seed`, `name`, what its result has as numbers or texts,
    `result` and `config` as JSON, `seconds`, `fingerprint`, `commit`, `uncommitted`, versions and device.

    Args:
        plan: the study.
        file: to write.

    Returns:
        number of rows.
    """
    import pyarrow as pa
    from pyarrow import parquet

    rows = [_row(record) for _, record in plan.lab.cells.finished()]
    columns = sorted({name for row in rows for name in row})
    content = pa.Table.from_pylist([{name: row.get(name) for name in columns} for row in rows])
    with atomic_file(file) as unfinished:
        parquet.write_table(content, unfinished, compression="zstd")
    return len(rows)


def _row(record: dict[str, Any]) -> dict[str, Any]:
    kind, *place = record["cell"].split("/", 4)
    row: dict[str, Any] = {"cell": record["cell"], "kind": kind, **dict(zip(_PLACE, place, strict=False))}
    row["seed"] = int(row["seed"]) if row.get("seed", "").isdigit() else None
    for name, value in record["result"].items():
        if isinstance(value, bool | int | float):
            row[name] = float(value)
        elif isinstance(value, str):
            row[name] = value
    row |= {name: json.dumps(record[name], sort_keys=True) for name in ("result", "config")}
    kept = ("seconds", "fingerprint", "commit", "uncommitted", "ks_lottery", "torch", "transformers", "peft", "python",
            "device", "threads")  # fmt: skip
    return row | {name: record.get(name) for name in kept if name not in row}
