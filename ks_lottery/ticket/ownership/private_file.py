"""Files that only their owner can read, whole or absent."""

import json
import os
import tempfile
from pathlib import Path

from ks_lottery.errors import OptionError


def write_private(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a new file of mode 0600, atomically; at no moment can anybody else read it.

    Raises:
        OptionError: if something is there: a key that is written over is lost.
        OSError: what the file system says.
    """
    target = Path(path)
    if target.exists():
        raise OptionError(f"{str(target)!r} exists, and a key that is written over is lost. Give another file.")
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")  # of mode 0600
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_private_json(path: str | os.PathLike[str], value: object) -> None:
    """Write a value as readable JSON; as `write_private`."""
    write_private(path, (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())
