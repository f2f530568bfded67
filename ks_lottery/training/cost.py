"""What a run costs: seconds and peak memory."""

import contextlib
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


@dataclass
class Cost:
    """Filled in when the measured block ends.

    Attributes:
        seconds: wall-clock time.
        peak_bytes: largest memory of the process during the block, of the GPU where there is one, else resident. Where
            the system cannot reset its peak (not Linux), the peak since the process began.
    """

    seconds: float = 0.0
    peak_bytes: int = 0


@contextlib.contextmanager
def measure() -> Iterator[Cost]:
    """Measure the time and the peak memory of a block.

    Example:
        `with measure() as cost: trainer.train()`, then `cost.seconds`.
    """
    cost = Cost()
    _reset_peak()
    start = time.perf_counter()
    try:
        yield cost
    finally:
        cost.seconds = time.perf_counter() - start
        cost.peak_bytes = _peak()


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):
            _CLEAR_REFS.write_text("5")


def _peak() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
