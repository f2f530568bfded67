"""The KS statistic of many rows on a GPU: the Triton kernel, the torch path, torch's plain form, and a mere read.

    python benchmarks/gpu_rows.py
    python benchmarks/gpu_rows.py --rows 4000 --output runs/benchmarks

Needs a GPU. Both matrices lie in its memory before the clock starts, and the clock waits for the GPU, so that launching
counts. Before a method is timed its integers must equal those of the CPU path.
"""

import argparse
import importlib.util
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from interleaved import Method, interleave
from result import Table, Target, require_equal, write_result
from torch import Tensor
from weight_pair import WeightPair, weight_pair

from ks_lottery.stats.kolmogorov import two_sample_statistic
from ks_lottery.stats.torch_rows import bits_on_device, torch_statistic
from ks_lottery.stats.triton_rows import available, triton_statistic

TRITON, TORCH, PLAIN = "ours, Triton", "ours, torch", "torch cat + sort + cumsum"
READ = "reading both once"
KERNEL_OVER_READ = 80  # 10 ms beside the 0.12 ms in which an H200 reads 32000 x 4096 bfloat16 twice


def main() -> None:
    """Time everything, print the tables and write `gpu_rows.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=32_000, help="rows of each matrix")
    parser.add_argument("--width", type=int, default=4096, help="values per row")
    parser.add_argument("--repeats", type=int, default=9, help="timed rounds")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"), help="folder of the JSON file")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("This benchmark needs a GPU, and torch finds none. benchmarks/ks.py measures the CPU path.")
    described = machine()
    tables = []
    for dtype in ("bfloat16", "float32"):
        for share in (1.0, 0.05):
            pair = weight_pair(options.rows, options.width, dtype, share)
            tables.append(compare(pair, torch.device("cuda"), options.repeats))
    print(write_result(options.output, "gpu_rows", "The KS statistic on a GPU", tables, described))


def compare(pair: WeightPair, device: torch.device, repeats: int) -> Table:
    """Every method on one pair of matrices.

    Args:
        pair: two matrices [rows, d], on the CPU.
        device: where the methods run; the Triton kernel is left out where it cannot.
        repeats: timed rounds.
    """
    expected = two_sample_statistic(pair.before, pair.after)
    before, after = pair.before.to(device), pair.after.to(device)
    ways: dict[str, Callable[[Tensor, Tensor], Tensor]] = {PLAIN: plain_statistic, TORCH: torch_statistic}
    if available(before):
        ways[TRITON] = triton_statistic
    for name, way in ways.items():
        require_equal(name, expected, way(before, after).cpu())
    methods = [Method(name, lambda way=way: way(before, after)) for name, way in ways.items()]
    methods.append(Method(READ, lambda: read_once(before, after)))
    timings = interleave(methods, repeats, warm_up=2, clock=synchronised(device))
    targets = [Target(TORCH, PLAIN, faster=1)]
    if TRITON in ways and pair.share == 1.0 and pair.dtype == "bfloat16":
        targets.append(Target(TRITON, READ, slower=KERNEL_OVER_READ))
    rows, d = before.shape
    return Table(
        f"{rows:,} rows of {d:,} values, {pair.dtype}, {pair.share:.0%} of the rows changed, on {device.type}.",
        "ms",
        1e3,
        timings,
        PLAIN,
        READ,
        [target.judge(timings) for target in targets],
        f"the integers of all {rows:,} rows equal those of the CPU path",
    )


def plain_statistic(before: Tensor, after: Tensor) -> Tensor:
    """Sort both sides of a row together, add up +1 and -1, and look at the sum after the last of equal values."""
    pooled, order = torch.cat([before, after], dim=1).sort(dim=1)
    walk = torch.where(order < before.shape[1], 1, -1).cumsum(dim=1)
    last = torch.ones_like(walk, dtype=torch.bool)
    last[:, :-1] = pooled[:, 1:] != pooled[:, :-1]
    return (walk.abs() * last).amax(dim=1)


def read_once(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Every byte of both sides through the processor once."""
    first, second = (bits_on_device(side).view(torch.int32).amax() for side in (before, after))
    return first, second


def synchronised(device: torch.device) -> Callable[[], float]:
    """A clock that waits until the device has done what was asked of it."""

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def machine() -> dict[str, Any]:
    """The GPU, the system, versions, and the command that is running."""
    versions = {"torch": torch.__version__, "CUDA": str(torch.version.cuda)}
    if importlib.util.find_spec("triton") is not None:
        import triton

        versions["triton"] = triton.__version__
    return {
        "cpu": torch.cuda.get_device_name(),
        "cores": torch.cuda.get_device_properties(0).multi_processor_count,
        "system": f"{platform.system()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": versions,
        "command": shlex.join(["python", "benchmarks/gpu_rows.py", *sys.argv[1:]]),
    }


if __name__ == "__main__":
    main()
