"""Finders of tickets side by side on the same weights, data and budget, with the controls that each has to beat.

    accelerate launch recipes/compare.py                          # embedded model and corpora, minutes on two cores
    accelerate launch recipes/compare.py recipes/configs/compare_tatoeba.yaml --out runs/compare-tatoeba
    accelerate launch recipes/compare.py MY.yaml --shard 0/4      # one machine of four that share the folder

A killed run goes on where it stopped. `ks-lottery compare` is the same program for tasks whose data stands in files.
"""

import sys
from pathlib import Path

import comparison_tasks  # noqa: F401  (registers the kinds of task that the configurations name)
import typer

from ks_lottery.cli.compare import Config, Out, Ray, ShardOption, Slurm, Workers
from ks_lottery.cli.compare import compare as compare_finders
from ks_lottery.errors import LotteryError

DEFAULT = str(Path(__file__).parent / "configs" / "compare.yaml")


def compare(
    config: Config = DEFAULT,
    out: Out = "runs/compare",
    shard: ShardOption = None,
    workers: Workers = None,
    slurm: Slurm = None,
    ray: Ray = None,
) -> None:
    """Compare finders of tickets; see the head of this file."""
    compare_finders(config, out, shard, workers, slurm, ray)


if __name__ == "__main__":
    try:
        typer.run(compare)
    except LotteryError as error:
        sys.exit(f"{type(error).__name__}: {error}")
