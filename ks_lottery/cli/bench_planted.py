"""`ks-lottery bench-planted`: every finder on tickets that are known."""

import os
import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ks_lottery.cli.completion import finder_names
from ks_lottery.cli.method import usage_errors
from ks_lottery.cli.screen import AsJson, console, only_json, print_error, print_json

if TYPE_CHECKING:
    from ks_lottery.evaluation.planted import PlantedBench, PlantedRow
    from ks_lottery.evaluation.planted_cases import Case

Out = Annotated[str, typer.Option("--out", metavar="DIR", help="Folder of the benchmark; a rerun continues there.")]
Quick = Annotated[bool, typer.Option("--quick", help="One small case with short trainings, to see how it works.")]
CaseNames = Annotated[list[str] | None, typer.Option("--case", help="Case; repeatable. Default: all.")]
FinderNames = Annotated[
    list[str] | None, typer.Option("--finder", help="Finder; repeatable. Default: all.", autocompletion=finder_names)
]
Seeds = Annotated[int, typer.Option("--seeds", metavar="N", help="How often each case is planted anew.")]
Workers = Annotated[int | None, typer.Option("--workers", help="Processes. Default: one per GPU, or per core.")]
ShardOption = Annotated[
    str | None, typer.Option("--shard", metavar="I/N", help="Make only the rows whose number is I modulo N.")
]


def bench_planted(
    out: Out = "runs/planted",
    quick: Quick = False,
    case: CaseNames = None,
    finder: FinderNames = None,
    seeds: Seeds = 1,
    json: AsJson = False,
    workers: Workers = None,
    shard: ShardOption = None,
) -> None:
    """Let every finder look for planted tickets, and print precision, recall and loss beside the planted ticket's.

    Every finished row is one file in DIR/rows; a rerun makes what is missing. DIR/report holds the page, the pictures
    and the numbers.

    Example: ks-lottery bench-planted --quick --finder magnitude --finder random
    """
    from ks_lottery.evaluation.comparison import workers as side_by_side

    side_by_side.end_with_parent()
    # PEFT asks for an attribute that transformers is going to rename, once per adapter.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    with usage_errors():
        place = side_by_side.parse_shard(shard) if shard else None
        bench = _bench(Path(out), _cases(case, quick), finder, seeds, quiet=json)
        count = 1 if place else workers or min(side_by_side.default_workers(), len(bench.places))
        _require_positive(workers)
    again = _arguments(out, quick, case, finder, seeds)
    if count == 1:
        with only_json(json):
            rows = bench.run(place or (0, 1))
    else:
        silent = ["--json"] if json else []
        side_by_side.run_workers(side_by_side.this_program(["bench-planted", *again, *silent]), count)
        rows = bench.rows()
    if side_by_side.PARENT in os.environ:
        return  # who started the workers shows what came of them
    _show(bench, rows, shlex.join(["ks-lottery", "bench-planted", *again]), json)


def _bench(
    folder: Path, cases: "Sequence[Case]", finders: Sequence[str] | None, seeds: int, quiet: bool
) -> "PlantedBench":
    from ks_lottery.errors import OptionError
    from ks_lottery.evaluation.planted import PlantedBench

    if seeds < 1:
        raise OptionError(f"--seeds {seeds}: plant at least once.")
    say = (lambda line: console(stderr=True).print(line, markup=False)) if quiet else typer.echo
    return PlantedBench(folder, cases, finders or None, range(seeds), say)


def _cases(names: Sequence[str] | None, quick: bool) -> "list[Case]":
    """The cases of these names; short ones if quick."""
    from ks_lottery.errors import UnknownNameError
    from ks_lottery.evaluation.planted_cases import CASES, quick_case

    known = {one.name: one for one in CASES}
    for name in names or ():
        if name not in known:
            raise UnknownNameError(f"Unknown case {name!r}. Available: {', '.join(known)}.")
    chosen = [known[name] for name in names] if names else [one for one in CASES if one.quick or not quick]
    return [quick_case(one) for one in chosen] if quick else chosen


def _require_positive(workers: int | None) -> None:
    from ks_lottery.errors import OptionError

    if workers is not None and workers < 1:
        raise OptionError(f"--workers {workers}: must be at least 1.")


def _arguments(
    out: str, quick: bool, case: Sequence[str] | None, finder: Sequence[str] | None, seeds: int
) -> list[str]:
    """The options that decide the rows, as a person types them."""
    words = ["--out", out, *(["--quick"] if quick else [])]
    for name, values in (("--case", case), ("--finder", finder)):
        words += [word for value in values or () for word in (name, value)]
    return words + (["--seeds", str(seeds)] if seeds != 1 else [])


def _show(bench: "PlantedBench", rows: "Sequence[PlantedRow]", command: str, as_json: bool) -> None:
    from ks_lottery.report.planted import write_planted

    about = {one.name: one.says for one in bench.cases}
    meta = {
        "steps of every training": ", ".join(f"{one.name} {one.budget.steps}" for one in bench.cases),
        "seeds": ", ".join(map(str, bench.seeds)),
    }
    path = write_planted(bench.folder / "report", rows, about, command, meta)
    failed = [row for row in rows if row.failed]
    if failed:
        print_error(f"{len(failed)} of {len(rows)} rows failed, the first: {failed[0].finder}: {failed[0].reason}")
    if as_json:
        print_json([row.to_dict() for row in rows])
        return
    _print_table(rows)
    typer.echo(f"report: {path}")


def _print_table(rows: "Sequence[PlantedRow]") -> None:
    from rich.table import Table

    from ks_lottery.report.planted_tables import share, short
    from ks_lottery.ticket.markdown import MISSING

    shown = Table(box=None, header_style="bold")
    for name in ("case", "seed", "finder", "precision", "recall", "loss ratio"):
        shown.add_column(name, justify="left" if name in ("case", "finder") else "right")
    for row in rows:
        if row.precision is not None:
            shown.add_row(
                row.case, str(row.seed), row.finder, share(row.precision), share(row.recall), short(row.ratio)
            )
    for row in rows:
        if row.reason:
            shown.add_row(row.case, str(row.seed), row.finder, MISSING, MISSING, MISSING)
    console().print(shown)
    without = sum(bool(row.reason) for row in rows)
    if without:
        typer.echo(f"{without} of {len(rows)} rows have no ticket; the report says why.")
