"""Where the cells of a comparison are kept: lines that are only ever appended, one file per worker."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ks_lottery.checkpoints.writer import atomic_file, write_json
from ks_lottery.errors import OptionError
from ks_lottery.evaluation.comparison.plan import Plan
from ks_lottery.evaluation.record import Record
from ks_lottery.training.run_lock import exclusively, writing_to
from ks_lottery.training.sealed import opened, read_sealed, sealed

_PLAN = "comparison.json"
_NAMED, _SHOWN = 3, 80


class Store:
    """The results of one comparison, in a folder that several workers may share.

    Each worker appends finished cells to a file of its own, one JSON object a line. A line that a kill cut off is no
    cell, and is made again. Two processes that are started as one worker append in turn.

    Args:
        folder: of the comparison.
        plan: what is compared.
        worker: name of this worker's file.

    Raises:
        OptionError: if the folder holds another comparison.
    """

    def __init__(self, folder: str | os.PathLike[str], plan: Plan, worker: str = "0-of-1") -> None:
        self.folder = Path(folder)
        self._own = self.folder / "results" / f"{worker}.jsonl"
        with writing_to(self.folder):
            self._own.parent.mkdir(parents=True, exist_ok=True)
        with exclusively(self.folder / _PLAN):
            _require_same(self.folder / _PLAN, plan)

    def records(self) -> list[Record]:
        """All cells of all workers; of a cell that was made twice the first one that did not fail.

        Raises:
            DataError: if a line is no cell, or not the one that was written.
        """
        found: dict[str, Record] = {}
        for file in sorted(self._own.parent.glob("*.jsonl")):
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                try:
                    values = json.loads(line)
                except ValueError:
                    continue  # cut off
                if isinstance(values, dict):
                    place = f"Line {number} of {str(file)!r}"
                    values = opened(values, place, "Delete the line: the cell is made again.")
                record = Record.from_dict(values)
                if record.cell not in found or found[record.cell].error:
                    found[record.cell] = record
        return list(found.values())

    def finished(self) -> set[str]:
        """Fingerprints of the cells that need not be made again: those that did not fail."""
        return {record.cell for record in self.records() if not record.error}

    def append(self, record: Record) -> None:
        """Add a cell; it is on the disk when this returns."""
        with exclusively(self._own):
            self._mend()
            with self._own.open("a", encoding="utf-8") as file:
                file.write(json.dumps(sealed(record.to_dict()), sort_keys=True) + "\n")
                file.flush()
                os.fsync(file.fileno())

    def export(self) -> Path:
        """Write all cells into one table, `results.parquet`; costs are columns of their own, scores are JSON."""
        import pyarrow as pa
        from pyarrow import parquet

        rows = []
        for record in self.records():
            values = record.to_dict()
            flat = {f"{part}_{key}": v for part in ("finding", "training") for key, v in values.pop(part).items()}
            rows.append({**values, **flat, "scores": json.dumps(values["scores"], sort_keys=True)})
        target = self.folder / "results.parquet"
        with atomic_file(target) as temporary:
            parquet.write_table(pa.Table.from_pylist(rows), temporary)
        return target

    def _mend(self) -> None:
        """End a line that a kill cut off, so that the next one begins a line."""
        if self._own.is_file() and (content := self._own.read_bytes()) and not content.endswith(b"\n"):
            with self._own.open("ab") as file:
                file.write(b"\n")


def _require_same(path: Path, plan: Plan) -> None:
    """Check whose folder it is, or mark it."""
    if not path.is_file():
        write_json(path, sealed({"fingerprint": plan.fingerprint, "plan": plan.to_dict()}))
        return
    kept = read_sealed(path, "Delete it, and start again with the configuration that the comparison was begun with.")
    if kept["fingerprint"] != plan.fingerprint:
        differing = list(_differences(kept["plan"], plan.to_dict()))
        more = f", and {len(differing) - _NAMED} more" if len(differing) > _NAMED else ""
        raise OptionError(
            f"{str(path.parent)!r} holds another comparison: {'; '.join(differing[:_NAMED])}{more}. Give another "
            "folder, or the configuration that it was begun with."
        )


def _differences(then: Any, now: Any, place: str = "") -> Iterator[str]:
    """Where two plans differ, and what stands there."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted({*then, *now}):
            yield from _differences(then.get(key), now.get(key), f"{place}.{key}".lstrip("."))
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for number, (one, other) in enumerate(zip(then, now, strict=True)):
            yield from _differences(one, other, f"{place}[{number}]")
    elif then != now:
        yield f"{place} was {_short(then)} and is {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."
