"""The largest of 134 million scores: ours beside numpy's partition and torch's topk, interleaved.

    python benchmarks/selection.py
    python benchmarks/selection.py --quick --output runs/benchmarks

Each method gives the sorted positions of exactly k scores. Before anything is timed the positions of numpy's must equal
ours; torch's choice among equal scores is arbitrary, so there the scores must. What a method takes beyond the scores
and the 8 bytes of each position it returns is the growth of a process of its own. Writes `selection.json`.
"""

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from interleaved import Method, interleave
from numpy.typing import NDArray
from result import Judgement, Table, Target, machine, require_equal, write_result

from ks_lottery.finders.select import largest

UNITS, DENSITIES = 134_000_000, (0.01, 0.05, 0.5)
OURS, PARTITION, TOPK, LIMIT = "ours", "numpy.partition", "torch.topk", "reading the scores once"
MOST_SECONDS, MOST_MEMORY = 3.0, 0.5
PIECE = 2**20

Positions = NDArray[np.int64]


def scores(units: int) -> NDArray[np.float32]:
    """Sizes of normal weights, always the same ones; made in pieces, so that the scores themselves are the peak."""
    generator = np.random.default_rng(0)
    values = np.empty(units, dtype=np.float32)
    for start in range(0, units, PIECE):
        piece = values[start : start + PIECE]
        generator.standard_normal(out=piece, dtype=np.float32)
        np.abs(piece, out=piece)
    return values


def ours(values: NDArray[np.float32], k: int) -> Positions:
    """The radix descent."""
    found: Positions = largest([values], [None], k)[0]
    return found


def by_partition(values: NDArray[np.float32], k: int) -> Positions:
    """The k-th largest from a partitioned copy, what is above it, and the first of what equals it."""
    threshold = np.partition(values, len(values) - k)[len(values) - k]
    above = np.flatnonzero(values > threshold)
    ties = np.flatnonzero(values == threshold)[: k - len(above)]
    return np.sort(np.concatenate([above, ties]))


def by_topk(values: NDArray[np.float32], k: int) -> Positions:
    """Torch's positions, sorted; which of equal scores it takes is not documented."""
    found: Positions = torch.topk(torch.from_numpy(values), k, sorted=False).indices.sort().values.numpy()
    return found


METHODS: dict[str, Callable[[NDArray[np.float32], int], Positions]] = {
    OURS: ours,
    PARTITION: by_partition,
    TOPK: by_topk,
}


def compare(values: NDArray[np.float32], density: float, repeats: int, memory: dict[str, float]) -> Table:
    """Time the methods at one density.

    Args:
        values: [units] scores.
        density: share that is selected.
        repeats: timed rounds.
        memory: what each method takes beyond the scores and its result, over the bytes of the scores.
    """
    k = round(density * len(values))
    found = ours(values, k)
    require_equal(PARTITION, found, by_partition(values, k))
    require_equal(TOPK, np.sort(values[found]), np.sort(values[by_topk(values, k)]))
    del found
    methods = [Method(name, lambda run=run: run(values, k)) for name, run in METHODS.items()]
    timings = interleave([*methods, Method(LIMIT, values.max)], repeats)
    seconds = timings[OURS].spread().median
    judgements = [
        Target(OURS, PARTITION, faster=1).judge(timings),
        Target(OURS, TOPK, faster=1).judge(timings),
        Judgement(OURS, f"< {MOST_SECONDS:g} s", seconds, seconds < MOST_SECONDS),
        Judgement(OURS, f"< {MOST_MEMORY:g} × the scores beyond them", memory[OURS], memory[OURS] < MOST_MEMORY),
    ]
    return Table(
        f"The {k:,} largest of {len(values):,} float32 scores (density {density:g}), {torch.get_num_threads()} "
        "thread(s) for torch, one for the others.",
        "s",
        1.0,
        timings,
        PARTITION,
        LIMIT,
        judgements,
        "positions equal those by numpy.partition, the scores at them those of torch.topk",
        {"beyond scores and result, / scores": {name: f"{figure:.2f}" for name, figure in memory.items()}},
    )


def growth(units: int, density: float, name: str) -> float:
    """Growth of this process's peak in one run of a method, less its result, over the bytes of the scores."""
    values, k = scores(units), round(density * units)
    METHODS[name](values[: 2**17], 2**10)
    before = peak()
    found = METHODS[name](values, k)
    return max(0.0, (peak() - before - found.nbytes) / values.nbytes)


def peak() -> int:
    """Largest resident set of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def growth_apart(units: int, density: float, name: str) -> float:
    """`growth` in a process of its own."""
    command = [sys.executable, __file__, "--growth-of", name, "--units", str(units), "--density", str(density)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def main() -> None:
    """Measure, print the tables and write `selection.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=UNITS, help="scores")
    parser.add_argument("--quick", action="store_true", help="few scores, to see that it runs")
    parser.add_argument("--repeats", type=int, default=3, help="timed rounds")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"), help="folder of the JSON file")
    parser.add_argument("--growth-of", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--density", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.growth_of:
        print(growth(options.units, options.density, options.growth_of))
        return
    described = machine()
    units = 200_000 if options.quick else options.units
    # First, since the peak of a child is never below that of its parent.
    memory = [{name: growth_apart(units, density, name) for name in METHODS} for density in DENSITIES]
    values = scores(units)
    tables = [
        compare(values, density, options.repeats, grown) for density, grown in zip(DENSITIES, memory, strict=True)
    ]
    print(write_result(options.output, "selection", "Selecting the largest scores", tables, described))


if __name__ == "__main__":
    main()
