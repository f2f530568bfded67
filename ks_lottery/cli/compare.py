"""`ks-lottery compare`: finders side by side, with their controls."""

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ks_lottery.cli.method import usage_errors

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
) -> None:
    """Compare finders of tickets on the same base weights, data order and number of trained weights, with controls.

    Every finished cell is one line in DIR/results; a rerun makes what is missing, failed cells included. When all cells
    are there, DIR/report holds the tables and pictures, and DIR/results.parquet the numbers.

    Example: ks-lottery compare comparison.yaml --out runs/compare --workers 2
    """
    from ks_lottery.evaluation.comparison import workers as side_by_side
    from ks_lottery.evaluation.comparison.plan import read_plan

    side_by_side.end_with_parent()
    with usage_errors():
        place = side_by_side.parse_shard(shard) if shard else side_by_side.shard_of_launcher(os.environ)
        plan = read_plan(config)
        if sum(choice is not None for choice in (place, workers, slurm, ray)) > 1:
            from ks_lottery.errors import OptionError

            raise OptionError("Give one of --shard, --workers, --slurm and --ray.")
    command = side_by_side.this_program([*_subcommand(), config, "--out", out])
    if slurm is not None:
        typer.echo(side_by_side.job_array(command, slurm), nl=False)
        return
    from ks_lottery.evaluation.compare import Comparison

    count = 1 if place else ray or workers or side_by_side.default_workers()
    if ray is None and count == 1:
        comparison = Comparison(plan, Path(out), place or (0, 1))
        comparison.run()
    else:
        comparison = Comparison(plan, Path(out))
        run = side_by_side.run_workers if ray is None else side_by_side.run_with_ray
        if not comparison.is_complete(failed_are_done=False):
            run(command, count)
    write_report(comparison, shlex.join(["ks-lottery", "compare", config, "--out", out]))


def write_report(comparison: "Comparison", command: str) -> Path | None:
    """Write table, pictures and report of a comparison if all its cells were made; its first failed cells are named."""
    from ks_lottery.evaluation.comparison.overlap import overlaps
    from ks_lottery.report.comparison import write_comparison

    if not comparison.is_complete():
        return None
    comparison.store.export()
    records = comparison.records()
    path = write_comparison(comparison.folder / "report", records, overlaps(comparison), comparison.meta(), command)
    failed = [record for record in records if record.error]
    typer.echo(f"report: {path}" + (f"; {len(failed)} of {len(records)} cells failed" if failed else ""))
    return path


def _subcommand() -> list[str]:
    """Words between the program and this command's arguments: a recipe has none."""
    return ["compare"] if "compare" in sys.argv[1:2] else []
