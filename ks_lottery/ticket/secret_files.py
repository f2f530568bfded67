"""What must not be published: private keys, keys of marks, access tokens."""

import json
from collections.abc import Iterator
from pathlib import Path

from ks_lottery.checkpoints.redaction import holds_token
from ks_lottery.errors import OptionError

_LARGEST = 2**20  # bytes of a text file that is looked into
_PRIVATE_KEY = ("-----BEGIN", "PRIVATE KEY-----")
_MARK_KEY = {"text", "secret", "parameter", "row", "column", "block", "size"}


def require_no_secrets(folder: Path) -> None:
    """Check that a folder can be published.

    Looked into are text files of at most 1 MiB; what is hidden in tensors or pictures goes unseen.

    Args:
        folder: with subfolders.

    Raises:
        OptionError: if a file is a private key or the key of a mark, or holds an access token; the message names it
            and does not quote it.
    """
    for file, what in _secrets(folder):
        raise OptionError(
            f"{str(file.relative_to(folder))!r} in {str(folder)!r} {what}, which is for you alone. Keep it elsewhere; "
            "nothing was uploaded."
        )


def _secrets(folder: Path) -> Iterator[tuple[Path, str]]:
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if file.stat().st_size > _LARGEST:
            continue
        content = file.read_bytes()
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            continue
        if all(mark in text for mark in _PRIVATE_KEY):
            yield file, "is a private key"
        if _is_mark_key(text):
            yield file, "is the key of a mark"
        if holds_token(text):
            yield file, "holds an access token"


def _is_mark_key(text: str) -> bool:
    if '"secret"' not in text:
        return False
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(data, dict) and set(data) >= _MARK_KEY
