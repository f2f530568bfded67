"""`ks-lottery diff` of two checkpoints beside a plain read of the same files: time, speed, and memory.

    python benchmarks/diff.py
    python benchmarks/diff.py --bytes 2e8 --folder runs/benchmarks/pair --output runs/benchmarks

Both run in turn: in one process, then as processes of their own, with the files in the page cache and with files that
come from the disk. This process imports no torch and holds
no weights: the peak that the system reports for a child is never below its parent's.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from interleaved import Method, Timing, interleave
from result import Judgement, Table, Target, machine, require_equal, write_result

HERE = Path(__file__).resolve().parent
DIFF, READ = "ks-lottery diff", "plain read"
MOST_MEMORY = 300  # MB


@dataclass(frozen=True, slots=True)
class Finished:
    """A process that has ended.

    Attributes:
        output: what it wrote to standard output.
        peak: largest resident set, in bytes.
    """

    output: str
    peak: int


def main() -> None:
    """Make the pair if it is not there, time, print the table and write `diff.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=float, default=2e9, help="size of both checkpoints together")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="of all tensors")
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmarks/pair"), help="where the pair is, or goes")
    parser.add_argument("--quick", action="store_true", help="20 MB, to see that it runs")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"), help="folder of the JSON file")
    options = parser.parse_args()
    described = machine()
    folder = make_pair(options.folder, 2e7 if options.quick else options.bytes, options.dtype)
    tables = compare(folder, options.repeats)
    print(write_result(options.output, "diff", "The diff of two checkpoints", tables, described))


def make_pair(folder: Path, total_bytes: float, dtype: str) -> Path:
    """The folder of a pair of this size and dtype, below `folder`; it is written if it is not there."""
    pair = folder / f"{dtype}-{total_bytes:.3g}"
    if not (pair / "pair.json").is_file():
        script = str(HERE / "checkpoint_pair.py")
        run([sys.executable, script, str(pair), "--bytes", str(total_bytes), "--dtype", dtype])
    return pair


def compare(folder: Path, repeats: int) -> list[Table]:
    """Time both on a pair of checkpoints: in one process, and as whole processes, from memory and from the disk.

    Args:
        folder: of the pair.
        repeats: timed rounds.
    """
    sides = [str(folder / side) for side in ("before", "after")]
    commands = {
        DIFF: [sys.executable, "-m", "ks_lottery.cli", "diff", *sides, "--json"],
        READ: [sys.executable, str(HERE / "plain_read.py"), *sides],
    }
    pair = json.loads((folder / "pair.json").read_text(encoding="utf-8"))
    checked = check(pair, run(commands[DIFF]).output)  # the warm-up, too
    printed = json.loads(run([*commands[READ], str(repeats)]).output)
    work = {DIFF: Timing(DIFF, tuple(printed["diff"])), READ: Timing(READ, tuple(printed["read"]))}
    size = f"{printed['bytes'] / 1e9:.3g} GB in two checkpoints, {pair['dtype']}, 5% of the rows of each matrix changed"
    tables = [_table(f"{size}; in one process, files in memory, kernels loaded.", work, printed["bytes"], checked)]
    for where, prepare in (("in memory", None), ("dropped from memory before each run", partial(drop, folder))):
        runs: dict[str, list[Finished]] = {name: [] for name in commands}
        methods = [
            Method(name, partial(_run_into, runs[name], command), prepare=prepare) for name, command in commands.items()
        ]
        timings = interleave(methods, repeats, warm_up=0)
        peaks = {name: max(one.peak for one in finished) / 1e6 for name, finished in runs.items()}
        caption = f"{size}; whole processes, with starting Python, files {where}."
        tables.append(_table(caption, timings, printed["bytes"], checked, peaks))
    return tables


def _table(
    caption: str, timings: dict[str, Timing], size: int, checked: str, peaks: dict[str, float] | None = None
) -> Table:
    columns = {"GB/s": {name: f"{size / 1e9 / timing.spread().median:.2f}" for name, timing in timings.items()}}
    judgements = [Target(DIFF, READ, slower=1.5).judge(timings)]
    if peaks is not None:
        columns["largest resident set, MB"] = {name: f"{peak:.0f}" for name, peak in peaks.items()}
        judgements.append(Judgement(DIFF, f"≤ {MOST_MEMORY} MB", peaks[DIFF], peaks[DIFF] <= MOST_MEMORY))
    return Table(caption, "s", 1.0, timings, READ, READ, judgements, checked, columns)


def drop(folder: Path) -> None:
    """Let the system forget the files of a pair, so that they come from the disk."""
    for path in folder.rglob("*.safetensors"):
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def _run_into(finished: list[Finished], command: Sequence[str], *_: object) -> None:
    finished.append(run(command))


def check(pair: dict[str, Any], printed: str) -> str:
    """Compare what the program printed as JSON with what is known of the pair; say what was compared."""
    found = {one["name"]: one for one in json.loads(printed)["parameters"]}
    moved: dict[str, int] = pair["moved_rows"]
    changed = [found[name]["changed_rows"] if name in found else -1 for name in moved]
    require_equal("the pair", changed, list(moved.values()))
    for name, statistic in pair["scipy"].items():
        require_equal("scipy", found[name]["h"], statistic)
    return f"the changed rows of {len(moved)} tensors are those that were moved, and the D of one tensor is scipy's"


def run(command: Sequence[str]) -> Finished:
    """Run a program to its end, and ask the system for its memory.

    Raises:
        RuntimeError: if it fails; with what it said.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
        process = subprocess.Popen(command, stdout=out, stderr=error)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        error.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {error.read().decode()[-2000:]}")
        return Finished(out.read().decode(), usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


if __name__ == "__main__":
    main()
