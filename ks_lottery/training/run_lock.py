"""One process at a time: locks on what a run makes, which say who holds them."""

import contextlib
import errno
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ks_lottery.checkpoints.writer import clear_unfinished
from ks_lottery.errors import OptionError

_LOG = logging.getLogger(__name__)
_PATIENCE_SECONDS = 60.0


class RunLock:
    """Keeps other processes out of a run folder, from `acquire` to `release` or the end of this process.

    The operating system holds the lock, so a process that is killed lets go of it. This process itself may take it
    several times.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        file = self.folder / ".lock"
        self._holder = file.with_suffix(".holder")
        self._lock = FileLock(file, timeout=0, is_singleton=True)

    def acquire(self) -> None:
        """Take the folder, which is made if there is none.

        Raises:
            OptionError: if another process has it, which is named; or if nothing can be written there.
        """
        with writing_to(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire()
            except Timeout:
                raise OptionError(
                    f"The run folder {str(self.folder)!r} is in use by {_said_of(self._holder)}. Wait until that has "
                    "ended, end it, or give another folder; what it finishes is taken over by the next run there."
                ) from None
            self._holder.write_text(json.dumps(_me()), encoding="utf-8")

    def release(self) -> None:
        """Let others have the folder; nothing happens if this process does not hold it."""
        if self._lock.is_locked:
            if self._lock.lock_counter == 1:
                self._holder.unlink(missing_ok=True)
            self._lock.release()


@contextlib.contextmanager
def exclusively(place: Path) -> Iterator[None]:
    """Inside the block, no other process on any machine that shares the folder makes `place`; others wait.

    A process that is killed lets go of it, and what it left half written of `place` is removed by the next one. Who
    waits for longer than a minute is told for whom.

    Raises:
        OptionError: if nothing can be written beside `place`.
    """
    file = place.with_name(f".{place.name}.lock")
    holder, lock = file.with_suffix(".holder"), FileLock(file)
    with writing_to(place.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=_PATIENCE_SECONDS)
        except Timeout:
            _LOG.warning("Waiting for %r, which %s makes.", str(place), _said_of(holder))
            lock.acquire()
    try:
        with writing_to(place.parent):
            holder.write_text(json.dumps(_me()), encoding="utf-8")
            clear_unfinished(place)
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turn what the file system says about a folder into an error with a way out, before any work is done.

    Raises:
        OptionError: if the block raises an `OSError`.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise OptionError(
            f"The folder {str(folder)!r} cannot be written: {error.strerror or error}. "
            f"{'Free some space' if full else 'Make it writable'}, or give another folder."
        ) from error


def _me() -> dict[str, Any]:
    """What a holder says of itself."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def _said_of(file: Path) -> str:
    """Who holds a lock, as far as it is known: a holder that has just begun may not have said so yet."""
    try:
        holder = json.loads(file.read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (OSError, ValueError, LookupError, TypeError):
        return "another process"
