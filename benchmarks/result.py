"""What a benchmark leaves: a JSON file with the figures, the targets and the machine, and a Markdown page of it."""

import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from interleaved import Spread, Timing
from numpy.typing import ArrayLike

from ks_lottery.checkpoints.writer import write_json
from ks_lottery.stats.jit import worker_count

PACKAGES = ("numpy", "scipy", "torch", "numba", "ks_lottery")


class ResultsDifferError(AssertionError):
    """Two methods that are timed beside each other do not give the same result."""


def require_equal(name: str, ours: ArrayLike, theirs: ArrayLike, tolerance: float = 0.0) -> None:
    """Check our result against a peer's before anything is timed.

    Args:
        name: of the peer.
        ours: any shape.
        theirs: the same shape.
        tolerance: allowed relative difference.

    Raises:
        ResultsDifferError: with the first place where they differ.
    """
    own, other = np.asarray(ours), np.asarray(theirs)
    if own.shape != other.shape:
        raise ResultsDifferError(f"Ours has shape {own.shape}, {name} {other.shape}.")
    differ = np.flatnonzero(~(np.abs(own - other) <= tolerance * np.abs(other)))
    if differ.size:
        first = int(differ[0])
        raise ResultsDifferError(
            f"Ours and {name} differ in {differ.size} of {own.size} results, first at {first}: "
            f"{own.ravel()[first]} and {other.ravel()[first]}. No time is reported."
        )


@dataclass(frozen=True, slots=True)
class Target:
    """What a method has to reach.

    Attributes:
        method: whose target it is.
        against: the method it is measured against.
        faster: the other's time / its time has to be at least this.
        slower: its time / the other's time has to be at most this.
    """

    method: str
    against: str
    faster: float | None = None
    slower: float | None = None

    def judge(self, timings: Mapping[str, Timing]) -> "Judgement":
        """The median ratio beside the target."""
        own, other = timings[self.method], timings[self.against]
        if self.faster is not None:
            ratio = other.over(own).median
            target = f"≥ {self.faster:g} × faster than {self.against}"
            return Judgement(self.method, target, ratio, ratio >= self.faster)
        assert self.slower is not None
        ratio = own.over(other).median
        return Judgement(self.method, f"≤ {self.slower:g} × the time of {self.against}", ratio, ratio <= self.slower)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A target and what was measured for it."""

    method: str
    target: str
    measured: float
    met: bool


@dataclass(frozen=True, slots=True)
class Table:
    """One comparison.

    Attributes:
        caption: what was compared, in which sizes.
        unit: what the times are given in, "µs/row".
        per_second: how many units a second has.
        timings: one row each.
        peer: method that the others are faster than; if it is the limit, this is not shown.
        limit: method that no other can be faster than.
        judgements: targets, shown beside their methods.
        checked: what was found equal before anything was timed.
        columns: further columns: name to method to text.
    """

    caption: str
    unit: str
    per_second: float
    timings: Mapping[str, Timing]
    peer: str
    limit: str
    judgements: Sequence[Judgement]
    checked: str
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        """The table as JSON values."""
        methods = []
        for name, timing in self.timings.items():
            row: dict[str, Any] = {"name": name, "time": _figures(timing.spread(), self.per_second)}
            row["times_faster_than_peer"] = _figures(self.timings[self.peer].over(timing))
            row["time_over_limit"] = _figures(timing.over(self.timings[self.limit]))
            row["rounds"] = len(timing.seconds)
            row["targets"] = [
                {**asdict(judged), "measured": _rounded(judged.measured)}
                for judged in self.judgements
                if judged.method == name
            ]
            row.update({column: texts[name] for column, texts in self.columns.items() if name in texts})
            methods.append(row)
        return {
            "caption": self.caption,
            "unit": self.unit,
            "peer": self.peer,
            "limit": self.limit,
            "checked": self.checked,
            "columns": list(self.columns),
            "methods": methods,
        }


def machine() -> dict[str, Any]:
    """CPU, cores, system, versions, and the command that is running."""
    return {
        "cpu": _cpu(),
        "cores": worker_count(None),
        "system": f"{platform.system()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
    }


def write_result(folder: Path, name: str, title: str, tables: Sequence[Table], described: dict[str, Any]) -> str:
    """Write `folder/name.json`, and return the same as Markdown.

    Args:
        folder: where the JSON goes.
        name: of the benchmark.
        title: heading.
        tables: in their order.
        described: what `machine` returned when the benchmark started.
    """
    result = {"title": title, "machine": described, "tables": [table.figures() for table in tables]}
    write_json(folder / f"{name}.json", result)
    return markdown(result)


def markdown(result: Mapping[str, Any]) -> str:
    """A written result as Markdown: a heading, the machine, the tables."""
    about = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(about["versions"].items()))
    lines = [
        f"## {result['title']}",
        "",
        f"`{about['command']}` on {about['cpu']}, {about['cores']} cores, {about['system']}, load {about['load']} at "
        f"the start; Python {about['python']}, {versions}.",
    ]
    for table in result["tables"]:
        lines += ["", f"**{table['caption']}** Checked first: {table['checked']}.", "", *_markdown_table(table)]
    return "\n".join(lines) + "\n"


def _markdown_table(table: Mapping[str, Any]) -> list[str]:
    with_peer = table["peer"] != table["limit"]
    head = ["method", table["unit"], "range", *([f"faster than {table['peer']}"] if with_peer else [])]
    head += [f"time / {table['limit']}", *table["columns"], "target"]
    lines = [f"| {' | '.join(head)} |", "| :-- |" + " --: |" * (len(head) - 2) + " :-- |"]
    for method in table["methods"]:
        time, faster, over = method["time"], method["times_faster_than_peer"], method["time_over_limit"]
        cells = [method["name"], _number(time["median"]), f"{_number(time['low'])} to {_number(time['high'])}"]
        cells += [f"{_number(ratio['median'])} ×" for ratio in ((faster, over) if with_peer else (over,))]
        cells += [method.get(column, "") for column in table["columns"]]
        cells.append(
            "; ".join(
                f"{judged['target']}: {_number(judged['measured'])}, {'met' if judged['met'] else '**missed**'}"
                for judged in method["targets"]
            )
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _figures(spread: Spread, scale: float = 1.0) -> dict[str, float]:
    return {name: _rounded(scale * figure) for name, figure in asdict(spread).items()}


def _rounded(figure: float) -> float:
    return float(f"{figure:.4g}")


def _number(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


def _cpu() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
