"""The row-wise statistic by one Triton kernel, for rows that fit on one multiprocessor of a GPU."""

import importlib.util
import os
import shutil
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ks_lottery.errors import UnitError
from ks_lottery.stats.floats import FORMATS, dtype_of
from ks_lottery.stats.torch_rows import bits_on_device, refuse, require_one_device

_LARGEST_ROW = 2**16  # bytes of one side's keys in shared memory
_VALUES_PER_THREAD = 16
_OLDEST_TRITON = (3, 4)  # 3.2 has no gather, and 3.3 takes minutes to compile the kernel
_SIDE = {-1: "before", -2: "after"}


def available(rows: Tensor) -> bool:
    """Whether `triton_statistic` can take these rows.

    Args:
        rows: [units, n] floats. They fit up to n = 16384, in float64 up to 8192.

    Returns:
        True on a GPU of compute capability 8.0 or later, where Triton 3.4 or later is installed and finds a C compiler.
    """
    if not rows.is_cuda or _padded(rows.shape[1]) * _key_bytes(rows) > _LARGEST_ROW or not _installed():
        return False
    return torch.cuda.get_device_capability(rows.device) >= (8, 0)


def triton_statistic(before: Tensor, after: Tensor, *, name: str = "rows", first_row: int = 0) -> Tensor:
    """Two-sample Kolmogorov-Smirnov statistic, one test per row, each row in one pass over its values.

    Args:
        before: [units, n] float16, bfloat16, float32 or float64, any strides, for which `available` holds.
        after: the same shape and dtype, on the same device.
        name: what the rows belong to, for error messages.
        first_row: number of the first row in the whole that these rows are a piece of, for error messages.

    Returns:
        [units] int64 on the device of `before`: h with D = h / n, exact under ties; -0.0 equals 0.0.

    Raises:
        UnitError: if the devices differ, rows are too long, or a value is NaN or infinite (the first such row is
            named).

    Cost:
        One kernel, which is compiled in a few seconds when a dtype and a size of row are first met; the host waits for
        it once. No memory beyond the inputs and the result. A bit-identical row costs reading it.
    """
    require_one_device(before, after, name)
    units, n = before.shape
    if _padded(n) * _key_bytes(before) > _LARGEST_ROW:
        raise UnitError(
            f"{name!r}: rows of {n} {dtype_of(before)} values do not fit the Triton kernel, which takes up to "
            f"{_LARGEST_ROW // _key_bytes(before)}. Use torch_statistic, which takes any length."
        )
    statistic = torch.empty(units, dtype=torch.int64, device=before.device)
    if units == 0:
        return statistic
    old, new = bits_on_device(before), bits_on_device(after)
    with torch.cuda.device_of(before):
        _kernel()[(units,)](
            old, new, statistic, n, old.stride(0), new.stride(0), old.stride(1), new.stride(1), **layout(before)
        )
    broken = (statistic < 0).nonzero()
    if len(broken):
        row = int(broken[0])
        refuse(before, after, row, _SIDE[int(statistic[row])], name, first_row)
    return statistic


def layout(rows: Tensor) -> dict[str, Any]:
    """What the kernel is compiled for: constants and number of warps, for [units, n] floats."""
    import triton.language as tl

    layout_of_bits = FORMATS[dtype_of(rows)]
    size = _padded(rows.shape[1])
    warps = min(32, max(1, size // (32 * _VALUES_PER_THREAD)))
    threads = min(size, 32 * warps)
    wide = rows.element_size() == 8
    return {
        "SIZE": size,
        "BITS": size.bit_length() - 1,
        "THREADS": threads,
        "VECTOR": min(16 // rows.element_size(), size // threads),
        "EXPONENT": layout_of_bits.exponent,
        "KEY": tl.int64 if wide else tl.int32,
        "LOWEST": torch.iinfo(getattr(torch, layout_of_bits.integer)).min,
        "LARGEST": torch.iinfo(torch.int64 if wide else torch.int32).max,
        "num_warps": warps,
    }


def _padded(n: int) -> int:
    """The next power of two."""
    return 1 << (n - 1).bit_length()


def _key_bytes(rows: Tensor) -> int:
    """Bytes of a key: 16-bit floats are sorted in registers of 32 bits."""
    return max(4, rows.element_size())


@lru_cache(maxsize=1)
def _installed() -> bool:
    """Whether Triton is there, and the C compiler that it needs to launch a kernel."""
    compilers = [os.environ.get("CC"), "gcc", "clang"]
    if importlib.util.find_spec("triton") is None or not any(name and shutil.which(name) for name in compilers):
        return False
    import triton

    major, minor = triton.__version__.split(".")[:2]
    return (int(major), int(minor)) >= _OLDEST_TRITON


@lru_cache(maxsize=1)
def _kernel() -> Any:
    from ks_lottery.stats.triton_kernel import statistic_of_row

    return statistic_of_row
