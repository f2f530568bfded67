"""Work in a process of its own, which is killed at a chosen change of the file system or byte of a file."""

import itertools
import multiprocessing
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ks_lottery.adapter.export import exporter
from ks_lottery.evaluation import compare
from ks_lottery.training import probe, runs

__all__ = ["compare", "exporter", "load_file", "probe", "runs"]  # imported so that children need not

ROOT = Path(__file__).resolve().parents[2]
FAILED, SECONDS = 1, 120
_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.chmod", "os.truncate"}


@dataclass(frozen=True)
class Kill:
    """SIGKILL just before the n-th change below a folder: a file made or renamed, two folders exchanged, and so on.

    Attributes:
        folder: below which changes count.
        at: number of the change, from 1.
    """

    folder: Path
    at: int

    def arm(self) -> None:
        """Arrange it in this process."""
        numbers = itertools.count(1)

        def hook(event: str, details: tuple[Any, ...]) -> None:
            if self._changes(event, details) and next(numbers) == self.at:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)

    def _changes(self, event: str, details: tuple[Any, ...]) -> bool:
        if event == "ctypes.dlsym":
            return details[1] == "renameat2"
        opened = event == "open" and bool(details[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        writes = opened or event in _CHANGES
        if not writes or not isinstance(details[0], str | bytes | os.PathLike):
            return False
        path = os.fsdecode(details[0])
        return path.startswith(str(self.folder)) or (event != "open" and not os.path.isabs(path))


@dataclass(frozen=True)
class SmallDisk:
    """No file may grow beyond a number of bytes.

    Attributes:
        size: bytes.
        dies: end the process at once there, in the middle of the write; else the write fails.
    """

    size: int
    dies: bool = False

    def arm(self) -> None:
        """Arrange it in this process."""
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if self.dies else signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, resource.RLIM_INFINITY))


@dataclass(frozen=True)
class Nobody:
    """The process has the rights of an ordinary user, in a working folder that is not his.

    Attributes:
        folder: to work in; all others are out of reach.
    """

    folder: Path

    def arm(self) -> None:
        """Arrange it in this process."""
        self.folder.chmod(0o555)
        os.chdir(self.folder)
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)


Change = Kill | SmallDisk | Nobody


def start_child(work: Callable[..., None], *arguments: Any, log: Path, change: Change | None = None) -> Any:
    """Start a function of a module in a forked process; what it says and raises goes to `log`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.reliability.children"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    try:
        forkserver.ensure_running()
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before
    child = context.Process(target=_child, args=(work, arguments, log, change))
    child.start()
    return child


def in_child(work: Callable[..., None], *arguments: Any, log: Path, change: Change | None = None) -> int:
    """As `start_child`, and wait; returns the exit code, minus the signal where one ended it."""
    return exit_code(start_child(work, *arguments, log=log, change=change))


def exit_code(child: Any) -> int:
    """Wait for a child; one that hangs is killed, which is a failure of the test."""
    child.join(SECONDS)
    if child.is_alive():
        child.kill()
        child.join()
        raise AssertionError(f"not finished after {SECONDS} s")
    return int(child.exitcode)


def _child(work: Callable[..., None], arguments: tuple[Any, ...], log: Path, change: Change | None) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    torch.set_num_threads(1)
    sys.dont_write_bytecode = True
    if change is not None:
        change.arm()
    try:
        work(*arguments)
    except BaseException as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        traceback.print_exc()
        print(f"{type(error).__name__}: {error}", flush=True)
        sys.stderr.flush()
        os._exit(FAILED)
