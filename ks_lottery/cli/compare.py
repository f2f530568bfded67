"""`ks-lottery compare`: finders side by side, with their controls."""

import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ks_lottery.cli.method import usage_errors
from ks_lottery.cli.screen import AsJson, only_json, print_json
from ks_lottery.errors import OptionError

if TYPE_CHECKING:
    from ks_lottery.evaluation.compare import Comparison

Config = Annotated[str, typer.Argument(help="YAML file: tasks, tables of finders, densities, replicates, budget.")]
Out = Annotated[str, typer.Option("--out", metavar="DIR", help="Folder of the comparison; a rerun continues there.")]
ShardOption = Annotated[
    str | None, typer.Option("--shard", metavar="I/N", help="Make only the cells whose number is I modulo N.")
]
Workers = Annotated[
    int | None, typer.Option("--workers", help="Processes on this machine. Default: one per GPU, or per core.")
]
Slurm = Annotated[
    int | None, typer.Option("--slurm", metavar="N", help="Print a job array of N shards for sbatch instead.")
]
Ray = Annotated[int | None, typer.Option("--ray", metavar="N", help="Run N shards on Ray, where it is installed.")]


def compare(
    config: Config,
    out: Out = "runs/compare",
    shard: ShardOption = None,
    workers: Workers = None,
    slurm: Slurm = None,
    ray: Ray = None,
    as_json: AsJson = False,
) -> None:
    """Compare finders of tickets on the same base weights, data order and number of trained weights, with controls.

    Every finished cell is one line in DIR/results; a rerun makes what is missing, failed cells included. When all cells
    are there, DIR/report holds the tables and pictures, and DIR/results.parquet the numbers.

    Example: ks-lottery compare comparison.yaml --out runs/compare --workers 2
    """
    from ks_lottery.evaluation.comparison import workers as side_by_side
    from ks_lottery.evaluation.comparison.plan import read_plan

    side_by_side.end_with_parent()
    # PEFT asks for an attribute that transformers is going to rename, once per adapter.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    with usage_errors():
        if as_json and slurm is not None:
            raise OptionError(f"--json with --slurm {slurm}: a job script is no JSON. Leave one of them out.")
        place = side_by_side.parse_shard(shard) if shard else side_by_side.shard_of_launcher(os.environ)
        _require_one(place, workers, slurm, ray)
        if place or workers == 1:
            side_by_side.keep_one_gpu(os.environ)
        plan = read_plan(config)
    quiet = ["--json"] if as_json else []
    command = side_by_side.this_program([*_subcommand(), config, "--out", out, *quiet])
    if slurm is not None:
        typer.echo(side_by_side.job_array(command, slurm), nl=False)
        return
    from ks_lottery.evaluation.compare import Comparison

    with usage_errors(), only_json(as_json):
        comparison = Comparison(plan, Path(out), place or (0, 1))
        count = 1 if place else ray or workers or min(side_by_side.default_workers(), len(comparison.cells))
        if ray is None and count == 1:
            comparison.run()
        elif not comparison.is_complete(failed_are_done=False):
            comparison.require_fit()
            (side_by_side.run_workers if ray is None else side_by_side.run_with_ray)(command, count)
    if side_by_side.PARENT in os.environ:
        return  # who started the workers writes the report
    with only_json(as_json):
        page = write_report(comparison, _shown([config, "--out", out]))
    if as_json:
        records = [record.to_dict() for record in comparison.records()]
        print_json({"report": None if page is None else str(page), "records": records})


def _require_one(place: tuple[int, int] | None, workers: int | None, slurm: int | None, ray: int | None) -> None:
    """Check that at most one way to share the work out was chosen."""
    counts = {"--workers": workers, "--slurm": slurm, "--ray": ray}
    for name, count in counts.items():
        if count is not None and count < 1:
            raise OptionError(f"{name} {count}: must be at least 1.")
    if sum(choice is not None for choice in (place, *counts.values())) > 1:
        raise OptionError(
            "Give one of --shard, --workers, --slurm and --ray; processes of `accelerate launch` are shards already."
        )


def write_report(comparison: "Comparison", command: str) -> Path | None:
    """Write table, pictures and report of a comparison if all its cells were made; the first failed cell is named."""
    from ks_lottery.evaluation.comparison.overlap import overlaps
    from ks_lottery.report.comparison import write_comparison

    if not comparison.is_complete():
        return None
    comparison.store.export()
    records = comparison.records()
    path = write_comparison(comparison.folder / "report", records, overlaps(comparison), comparison.meta(), command)
    failed = [record for record in records if record.error]
    if failed:
        first = f"{failed[0].method} on {failed[0].task}, replicate {failed[0].replicate}: {failed[0].error}"
        typer.echo(f"{len(failed)} of {len(records)} cells failed, the first: {first}. A rerun tries them again.")
    typer.echo(f"report: {path}")
    return path


def _shown(arguments: Sequence[str]) -> str:
    """The command as a person would type it: a recipe's own configuration is left out, paths are relative."""
    here, script = Path.cwd(), Path(sys.argv[0]).resolve()
    if _subcommand():
        return shlex.join(["ks-lottery", "compare", *arguments])
    own = script.parent / "configs" / "compare.yaml"
    shown = [str(script.relative_to(here)) if script.is_relative_to(here) else script.name]
    shown += [argument for argument in arguments if Path(argument) != own]
    return shlex.join(["accelerate", "launch", *shown])


def _subcommand() -> list[str]:
    """Words between the program and this command's arguments: a recipe has none."""
    return ["compare"] if "compare" in sys.argv[1:2] else []
