"""The KS statistic of many rows, and of one whole matrix: ours beside scipy, numpy, torch, a sort, and a mere read.

    python benchmarks/ks.py
    python benchmarks/ks.py --quick --output runs/benchmarks

Times are per row. Peers that take long run on the first rows only, with the same share of changed rows; scipy, which is
done sooner with equal rows, on changed rows alone as well. Before a method is timed its integers must equal ours.
"""

import argparse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from interleaved import Method, interleave
from numpy.typing import NDArray
from result import Table, Target, machine, require_equal, write_result
from scipy.stats import ks_2samp
from weight_pair import WeightPair, weight_pair

from ks_lottery.stats.floats import bits_of
from ks_lottery.stats.jit import worker_count
from ks_lottery.stats.kolmogorov import two_sample_statistic
from ks_lottery.stats.matrix import matrix_statistic
from ks_lottery.stats.rows import sort_kind

SIZES = {4096: 32_000, 896: 151_936}  # row length to rows: the embeddings of Llama 2 7B and of Qwen 2.5 0.5B
DTYPES = ("float32", "bfloat16")
MATRIX = (4096, 4096)
SCIPY, MOVED = "scipy ks_2samp", "scipy ks_2samp, changed rows only"
OURS, ALONE = "ours", "ours, 1 thread"
SORT, READ = "sorting both alone, 1 thread", "reading both once"

_READERS = ThreadPoolExecutor(worker_count(None))


def main() -> None:
    """Time everything, print the tables and write `ks.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, help="rows of each matrix; the embeddings of two models if left out")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"), help="folder of the JSON file")
    options = parser.parse_args()
    described = machine()
    torch.set_num_threads(worker_count(None))
    tables = []
    for d, rows in SIZES.items():
        count = options.rows or (40 if options.quick else rows)
        for dtype in DTYPES:
            for share in (1.0, 0.05):
                tables.append(compare_rows(weight_pair(count, d, dtype, share), options.repeats))
    shape = (64, 256) if options.quick else MATRIX
    tables += [compare_matrix(weight_pair(*shape, dtype, 1.0), options.repeats) for dtype in DTYPES]
    print(write_result(options.output, "ks", "The KS statistic", tables, described))


def compare_rows(pair: WeightPair, repeats: int) -> Table:
    """One test per row.

    Args:
        pair: two matrices [rows, d].
        repeats: timed rounds.
    """
    before, after = pair.before, pair.after
    rows, d = before.shape
    statistic = two_sample_statistic(before, after)
    peers: dict[str, tuple[int, Callable[..., Any]]] = {
        SCIPY: (100, scipy_rows),
        "scipy ks_2samp, axis=1": (100, scipy_axis),
        "numpy sort + searchsorted": (1000, numpy_rows),
        "torch cat + sort + cumsum": (1000, torch_rows),
    }
    methods = []
    for name, (most, peer) in peers.items():
        count = min(most, rows)
        some = [side[:count] if peer is torch_rows else side[:count].float().numpy() for side in (before, after)]
        require_equal(name, statistic[:count], peer(*some))
        methods.append(Method(name, lambda peer=peer, some=some: peer(*some), count))
    if pair.share < 1.0:
        moved = (before != after).any(dim=1).nonzero()[:100, 0]
        sides = [side[moved].float().numpy() for side in (before, after)]
        require_equal(MOVED, statistic[moved], scipy_rows(*sides))
        methods.insert(1, Method(MOVED, lambda: scipy_rows(*sides), len(moved)))
    require_equal("ours with 1 thread", statistic, two_sample_statistic(before, after, threads=1))
    methods += [
        sorting(pair, rows),
        Method(ALONE, lambda: two_sample_statistic(before, after, threads=1), rows),
        Method(OURS, lambda: two_sample_statistic(before, after), rows),
        Method(READ, lambda: read_once(before, after), rows),
    ]
    if pair.share == 1.0:
        targets = [Target(OURS, SCIPY, faster=60 if d >= 4096 else 120), Target(ALONE, SORT, slower=1.3)]
    else:
        targets = [Target(OURS, MOVED, faster=300), Target(OURS, READ, slower=2)]
    timings = interleave(methods, repeats)
    return Table(
        f"{rows:,} rows of {d:,} values, {pair.dtype}, {pair.share:.0%} of the rows changed.",
        "µs/row",
        1e6,
        timings,
        SCIPY,
        READ,
        [target.judge(timings) for target in targets],
        f"the integers of {min(100, rows)} rows equal scipy's, those of {min(1000, rows):,} rows numpy's and torch's",
    )


def compare_matrix(pair: WeightPair, repeats: int) -> Table:
    """One test for all values of a matrix; times are for the whole.

    Args:
        pair: two matrices.
        repeats: timed rounds.
    """
    before, after = pair.before, pair.after
    flat = [side.float().numpy().ravel() for side in (before, after)]
    statistic = int(matrix_statistic(before, after))
    require_equal(SCIPY, statistic, scipy_rows(*(side[None] for side in flat))[0])
    methods = [
        Method(SCIPY, lambda: ks_2samp(flat[0], flat[1], method="asymp")),
        sorting(WeightPair(before.reshape(1, -1), after.reshape(1, -1), pair.dtype, pair.share), 1),
        Method(OURS, lambda: matrix_statistic(before, after)),
        Method(READ, lambda: read_once(before, after)),
    ]
    timings = interleave(methods, repeats)
    target = Target(OURS, READ, slower=15 if pair.dtype == "float32" else 8)
    return Table(
        f"One matrix of {before.numel():,} values, {pair.dtype}, every value changed.",
        "ms",
        1e3,
        timings,
        SCIPY,
        READ,
        [target.judge(timings)],
        f"ours and scipy's D are {statistic} / {before.numel():,}",
    )


def scipy_rows(before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.int64]:
    """Row by row, with the method that scipy chooses."""
    d = [ks_2samp(x, y).statistic for x, y in zip(before, after, strict=True)]
    return np.rint(np.array(d) * before.shape[1]).astype(np.int64)


def scipy_axis(before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.int64]:
    """All rows in one call, in which scipy loops over them."""
    return np.rint(ks_2samp(before, after, axis=1).statistic * before.shape[1]).astype(np.int64)


def numpy_rows(before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.int64]:
    """Sort each row, then count for every value of both how many lie at or below it."""
    statistic = np.empty(len(before), dtype=np.int64)
    for row, (x, y) in enumerate(zip(np.sort(before, axis=1), np.sort(after, axis=1), strict=True)):
        both = np.concatenate([x, y])
        below = np.searchsorted(x, both, side="right") - np.searchsorted(y, both, side="right")
        statistic[row] = np.abs(below).max()
    return statistic


def torch_rows(before: torch.Tensor, after: torch.Tensor) -> NDArray[np.int64]:
    """Sort both sides of a row together, add up +1 and -1, and look at the sum after the last of equal values."""
    pooled, order = torch.cat([before, after], dim=1).sort(dim=1)
    walk = torch.where(order < before.shape[1], 1, -1).cumsum(dim=1)
    last = torch.ones_like(walk, dtype=torch.bool)
    last[:, :-1] = pooled[:, 1:] != pooled[:, :-1]
    return (walk.abs() * last).amax(dim=1).numpy()


def sorting(pair: WeightPair, items: int) -> Method:
    """Both sides sorted along rows, in copies that are made untimed; 16-bit floats as integers of the same order."""
    sides = [side.numpy() if pair.dtype == "float32" else bits_of(side).keys() for side in (pair.before, pair.after)]
    copies = [np.empty_like(side) for side in sides]
    kind = sort_kind(sides[0].dtype.name) if pair.dtype != "float32" else None

    def prepare() -> None:
        for copy, side in zip(copies, sides, strict=True):
            np.copyto(copy, side)

    def run(_: None) -> None:
        for copy in copies:
            copy.sort(axis=1, kind=kind)

    return Method(SORT, run, items, prepare)


def read_once(before: torch.Tensor, after: torch.Tensor) -> None:
    """Every byte of both sides through the processor once, on all threads."""
    sides = [bits_of(side).array.reshape(-1).view(np.int64) for side in (before, after)]
    parts = [part for side in sides for part in np.array_split(side, worker_count(None))]
    list(_READERS.map(np.bitwise_or.reduce, parts))


if __name__ == "__main__":
    main()
