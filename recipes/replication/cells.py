"""Cells of a study: each leaves a run directory with its configuration, seed and commit, and is made once."""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from filelock import FileLock, Timeout

from ks_lottery._version import __version__
from ks_lottery.checkpoints.writer import write_json
from ks_lottery.errors import LotteryError, OptionError

RECORD = "run.json"
_POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Cell:
    """One training, search or test.

    Attributes:
        name: its run directory below the study's folder; the first part is its kind.
        config: JSON values that decide the result, beside those of the cells it needs.
        needs: names of the cells that are made before.
        make: fills the run directory and returns the results, JSON values.
    """

    name: str
    config: dict[str, Any]
    needs: tuple[str, ...]
    make: Callable[[Path], dict[str, Any]]

    @property
    def kind(self) -> str:
        """What sort of cell it is; cells of a kind take about as long."""
        return self.name.partition("/")[0]


class Cells:
    """The cells of one study, in the order in which they are made, and their run directories.

    Several processes may work in one folder: each takes the next cell that no other one holds. A killed process leaves
    no half cell behind: a run directory is renamed into place when it is whole.

    Args:
        folder: of the study.
        cells: in order.

    Raises:
        OptionError: if two cells have one name, or one needs a cell that is not there.
    """

    def __init__(self, folder: Path, cells: Sequence[Cell]) -> None:
        self.folder = folder
        self.cells = {cell.name: cell for cell in cells}
        if len(self.cells) < len(cells):
            names = [cell.name for cell in cells]
            twice = next(name for name in names if names.count(name) > 1)
            raise OptionError(f"The study has two cells of the name {twice!r}.")
        for cell in cells:
            for need in cell.needs:
                if need not in self.cells:
                    raise OptionError(f"The cell {cell.name!r} needs {need!r}, which the study does not have.")
        self._done: dict[str, dict[str, Any]] = {}

    def mark(self, name: str) -> str:
        """Fingerprint of all that decides a cell: its configuration and that of every cell it needs."""
        return self._marks[name]

    @cached_property
    def _marks(self) -> dict[str, str]:
        marks: dict[str, str] = {}

        def of(name: str) -> str:
            if name not in marks:
                cell = self.cells[name]
                content = [cell.name, cell.config, [of(need) for need in cell.needs]]
                marks[name] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
            return marks[name]

        for name in self.cells:
            of(name)
        return marks

    def place(self, name: str) -> Path:
        """The run directory of a cell."""
        return self.folder / name

    def record(self, name: str) -> dict[str, Any] | None:
        """The record of a finished cell; None if it is not finished, or was made with another configuration."""
        if name not in self._done:
            try:
                record = json.loads((self.place(name) / RECORD).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                return None
            if record.get("fingerprint") != self.mark(name):
                return None
            self._done[name] = record
        return self._done[name]

    def result(self, name: str) -> dict[str, Any]:
        """The results of a finished cell.

        Raises:
            LotteryError: if it is not finished.
        """
        record = self.record(name)
        if record is None:
            raise LotteryError(f"The cell {name!r} of {str(self.folder)!r} is not finished. Run the study first.")
        result: dict[str, Any] = record["result"]
        return result

    def known(self, name: str) -> dict[str, Any] | None:
        """The results of a cell; None if it is not finished, or the study does not have it."""
        if name not in self.cells or self.record(name) is None:
            return None
        return self.result(name)

    def finished(self) -> Iterator[tuple[Cell, dict[str, Any]]]:
        """Every finished cell with its record, in order."""
        for cell in self.cells.values():
            if (record := self.record(cell.name)) is not None:
                yield cell, record

    def work(self, minutes: float = float("inf"), workers: int = 1, say: Callable[[str], None] = print) -> int:
        """Make the cells that are missing.

        Args:
            minutes: after which no further cell is begun.
            workers: processes that work in this folder, for the estimate of the time that is left.
            say: where each finished cell is told.

        Returns:
            how many cells are still missing.
        """
        begin = time.monotonic()
        while missing := [cell for cell in self.cells.values() if self.record(cell.name) is None]:
            if time.monotonic() - begin > 60 * minutes:
                return len(missing)
            ready = (cell for cell in missing if all(self.record(need) is not None for need in cell.needs))
            if not any(self._try(cell, workers, say) for cell in ready):
                time.sleep(_POLL_SECONDS)  # other processes hold what is ready
        return 0

    def seconds_left(self, workers: int = 1) -> float:
        """Estimate: the missing cells, each as long as the finished ones of its kind on average; NaN if none is."""
        spent: dict[str, list[float]] = {}
        for cell, record in self.finished():
            spent.setdefault(cell.kind, []).append(record["seconds"])
        if not spent:
            return float("nan")
        means = {kind: sum(times) / len(times) for kind, times in spent.items()}
        other = sum(means.values()) / len(means)
        missing = [cell for cell in self.cells.values() if self.record(cell.name) is None]
        return sum(means.get(cell.kind, other) for cell in missing) / workers

    def _try(self, cell: Cell, workers: int, say: Callable[[str], None]) -> bool:
        """Make a cell, unless another process holds it."""
        lock = self.folder / "locks" / f"{cell.name.replace('/', '-')}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(lock, timeout=0):
                if self.record(cell.name) is not None:
                    return True
                seconds = self._make(cell)
        except Timeout:
            return False
        done = sum(1 for _ in self.finished())
        left = _hours(self.seconds_left(workers))
        shown = {name: value for name, value in self.result(cell.name).items() if isinstance(value, int | float | str)}
        brief = ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                          for name, value in list(shown.items())[:4])  # fmt: skip
        say(f"[{done}/{len(self.cells)}] {cell.name}: {seconds:.1f} s, {brief}; about {left} left")
        return True

    def _make(self, cell: Cell) -> float:
        place = self.place(cell.name)
        work = self.folder / "unfinished" / cell.name.replace("/", "-")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        begin = time.perf_counter()
        result = cell.make(work)
        seconds = time.perf_counter() - begin
        record = {
            "cell": cell.name,
            "fingerprint": self.mark(cell.name),
            "config": cell.config,
            "needs": {need: self.mark(need) for need in cell.needs},
            "result": result,
            "seconds": seconds,
            **surroundings(),
        }
        write_json(work / RECORD, record)
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        work.replace(place)
        return seconds


@lru_cache(maxsize=1)
def surroundings() -> dict[str, Any]:
    """The commit and the machine of this process, asked for once: the code that runs is the one that was read then."""
    return {
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "ks_lottery": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
    }


def _git(*arguments: str) -> str:
    """What git says of this checkout; empty where there is none."""
    try:
        answer = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip()


def _hours(seconds: float) -> str:
    if seconds != seconds:
        return "an unknown time"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
