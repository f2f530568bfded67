"""Compiling kernels: numba where it is, with its cache where a folder for it can be had."""

import importlib.util
import os
from collections.abc import Callable
from typing import Any


def can_compile() -> bool:
    """Whether kernels are compiled; numba's own switch NUMBA_DISABLE_JIT=1 turns them off."""
    return importlib.util.find_spec("numba") is not None and os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a function that numba compiles when it is first called; it runs without the interpreter lock.

    Compiled code is kept in numba's cache, so that a process pays for it once; without a writable folder every process
    compiles for itself.
    """
    from numba import njit

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # numba found no folder to cache in
            return njit(nogil=True, **options)(function)

    return decorate


def worker_count(threads: int | None) -> int:
    """Number of threads to use: as asked, or one per processor that this process may use, at most 8."""
    if threads is not None:
        return max(1, threads)
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, available)
