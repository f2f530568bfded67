"""Files that are either whole or absent: written under a temporary name, then renamed."""

import contextlib
import ctypes
import errno
import glob
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ks_lottery.errors import WriteError

_FULL = {
    errno.ENOSPC: "Free some space, or write to another disk",
    errno.EDQUOT: "Free some of your quota, or write to another disk",
    errno.EFBIG: "Raise the limit on the size of files (ulimit -f), or write to another file system",
}
_REFUSED = dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Make the folder writable, or write to another one")
_CURRENT_FOLDER, _EXCHANGE = -100, 2  # of renameat2


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced to disk and renamed to `path`.

    On any exception (a full disk, Ctrl-C) the temporary file is removed and what stood at `path` is left as it was.

    Raises:
        WriteError: if the disk is full, or the folder may not be written; `errno` is that of the cause.
        OSError: what else the file system says.
    """
    target = Path(path)
    with _named(target, {**_FULL, **_REFUSED}):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        with _named(target, _FULL):
            yield temporary
            _sync(temporary)
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it takes the place of `path`.

    An older folder at `path` is replaced as a whole, so files of two runs never mix. Where the system can exchange two
    names in one step (Linux), one of the two is at `path` at every moment, even when the process is killed. Elsewhere
    the older one is moved aside first and removed last: one of the two is there, whole, at `path` or in
    `.<name>.*.old` beside it.

    Raises:
        WriteError: if the disk is full, or the folder may not be written; `errno` is that of the cause.
        OSError: what else the file system says.
    """
    target = Path(path)
    with _named(target, {**_FULL, **_REFUSED}):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp"))
    try:
        with _named(target, _FULL):
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _sync(file)
            temporary.chmod(0o777 & ~_umask())
            _take_the_place(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def clear_unfinished(path: str | os.PathLike[str]) -> None:
    """Remove what killed writers of a file or folder left beside it, and put back a folder that one had moved aside.

    Args:
        path: as of `atomic_file` or `atomic_folder`; no other process may be writing it.
    """
    target = Path(path)
    beside = f".{glob.escape(target.name)}.*"
    for aside in sorted(target.parent.glob(f"{beside}.old")):
        if not target.exists() and (aside / target.name).exists():
            (aside / target.name).replace(target)
        shutil.rmtree(aside)
    for temporary in sorted(target.parent.glob(f"{beside}.tmp")):
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink()


def write_json(path: str | os.PathLike[str], value: object) -> None:
    """Write `value` as readable JSON with sorted keys, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _take_the_place(new: Path, target: Path) -> None:
    """Give a folder the name `target`; an older one there is then at `new`, or removed, or put back if that fails."""
    if not target.is_dir():
        new.replace(target)  # a file there is an error
        return
    if _exchange(new, target):
        return
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".old"))
    try:
        target.replace(aside / target.name)
        new.replace(target)
    except BaseException:
        if not target.exists() and (aside / target.name).exists():
            (aside / target.name).replace(target)
        raise
    finally:
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change names in one step; False where the system cannot."""
    try:
        exchange = ctypes.CDLL(None).renameat2
    except (OSError, TypeError, AttributeError):
        return False
    done: int = exchange(_CURRENT_FOLDER, os.fsencode(one), _CURRENT_FOLDER, os.fsencode(other), _EXCHANGE)
    return done == 0


@contextlib.contextmanager
def _named(target: Path, ways_out: dict[int, str]) -> Iterator[None]:
    """Turn what the file system says, and does not say of which file, into an error that names the target.

    Args:
        target: that is written.
        ways_out: what to do, by error number; other errors pass.
    """
    try:
        yield
    except Exception as error:
        number = _number_of(error)
        if number not in ways_out:
            raise
        free = f", {_free_bytes(target)} bytes are free" if number in _FULL else ""
        said = WriteError(
            f"Cannot write {str(target)!r}: {os.strerror(number)}{free}. What stood there is as it was. "
            f"{ways_out[number]}."
        )
        said.errno = number
        raise said from error


def _free_bytes(target: Path) -> int:
    """Of the disk that a file would lie on."""
    return shutil.disk_usage(next(folder for folder in target.absolute().parents if folder.is_dir())).free


def _number_of(error: Exception) -> int:
    """The error number of an exception; the library safetensors says it in words only."""
    if isinstance(error, OSError):
        return error.errno or 0
    said = re.search(r"os error (\d+)", str(error)) if type(error).__name__ == "SafetensorError" else None
    return int(said[1]) if said else 0


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
