"""Files that say whether they are still what was written: a disk that forgets bits is noticed."""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ks_lottery.checkpoints.writer import write_json
from ks_lottery.errors import DataError

SEAL = "sha256"
_CHECKSUMS = "checksums.json"


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values with their SHA-256 beside them, under "sha256"."""
    return {**values, SEAL: _digest(values)}


def opened(values: Mapping[str, Any], place: str, way_out: str) -> dict[str, Any]:
    """The values without their seal. Those that never had one, of an older version, are taken as they are.

    Args:
        values: read from a file.
        place: of them, for the message.
        way_out: what to do, as a sentence.

    Raises:
        DataError: if they are not those that were sealed.
    """
    content = {key: value for key, value in values.items() if key != SEAL}
    if SEAL in values and values[SEAL] != _digest(content):
        raise DataError(
            f"{place} is damaged: its values have SHA-256 {_digest(content)[:12]}, and {str(values[SEAL])[:12]} when "
            f"they were written. {way_out}"
        )
    return content


def read_sealed(file: Path, way_out: str) -> dict[str, Any]:
    """Read a JSON object, sealed or not; `way_out` as of `opened`.

    Raises:
        DataError: if the file is missing, damaged, or no JSON object.
    """
    try:
        values = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise DataError(f"There is no {str(file)!r}, which was written with what lies beside it. {way_out}") from None
    except ValueError as error:
        raise DataError(f"{str(file)!r} is damaged, and cannot be read as JSON: {error}. {way_out}") from error
    if not isinstance(values, dict):
        raise DataError(f"{str(file)!r} is damaged: it holds no JSON object. {way_out}")
    return opened(values, repr(str(file)), way_out)


def seal_folder(folder: Path) -> None:
    """Write down size and SHA-256 of every file in a folder, in its `checksums.json`.

    Cost:
        Reads every file once.
    """
    write_json(folder / _CHECKSUMS, sealed({name: _described(file) for name, file in _files(folder).items()}))


def is_sealed(folder: Path) -> bool:
    """Whether `seal_folder` has been there."""
    return (folder / _CHECKSUMS).is_file()


def require_seal(folder: Path, way_out: str) -> None:
    """Check that a folder holds what it did when it was sealed; a file that stays as it is on disk is read once.

    Raises:
        DataError: if a file is missing, or another one; `way_out` as of `opened`.
    """
    files = _files(folder)
    for name, expected in read_sealed(folder / _CHECKSUMS, way_out).items():
        if name not in files:
            raise DataError(f"{str(folder / name)!r} is missing, and was there when the run ended. {way_out}")
        found = _described(files[name])
        if found != expected:
            raise DataError(
                f"{str(folder / name)!r} is damaged: it has {found[0]} bytes of SHA-256 {found[1][:12]}, and had "
                f"{expected[0]} of {expected[1][:12]} when it was written. {way_out}"
            )


def _files(folder: Path) -> dict[str, Path]:
    files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
    files.pop(_CHECKSUMS, None)
    return files


def _described(file: Path) -> list[Any]:
    status = file.stat()
    return [status.st_size, _sha256(file, status.st_size, status.st_mtime_ns, status.st_ino)]


@lru_cache(maxsize=4096)
def _sha256(file: Path, *status: int) -> str:
    """Of a file with this size, time and place on disk."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest(values: Mapping[str, Any]) -> str:
    """Of what a JSON file will give back."""
    return hashlib.sha256(json.dumps(json.loads(json.dumps(values)), sort_keys=True).encode()).hexdigest()
