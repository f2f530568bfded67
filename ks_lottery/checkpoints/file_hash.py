"""Whether files are those that the Hub has: by the hashes that it gives."""

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ks_lottery.errors import HubError


def require_hashes(files: Mapping[str, Path], listing: Mapping[str, Any], repo_id: str) -> None:
    """Compare downloaded files with the Hub's listing of the same commit.

    A file that differs is taken out of the local cache, so that the next download fetches it anew.

    Args:
        files: path inside the repository to the file on this machine.
        listing: path inside the repository to the `RepoFile` of `HfApi.list_repo_tree`: its SHA-256 where the file is
            stored apart, else its git hash.
        repo_id: for the message.

    Raises:
        HubError: if a file is not the one that the Hub lists.

    Cost:
        Reads every file once.
    """
    for name, file in files.items():
        entry = listing[name]
        expected = str(entry.blob_id if entry.lfs is None else entry.lfs.sha256).lower()
        found = _git_hash(file) if entry.lfs is None else _sha256(file)
        if found != expected:
            raise _damaged(name, file, repo_id, found, expected)


def require_blob(file: Path, repo_id: str) -> None:
    """Compare a cached file with the hash that its place in the cache is named after, without asking the Hub.

    Files that are stored apart, as safetensors are, are named after their SHA-256; others are not looked into, nor are
    caches without links.

    Args:
        file: in the local cache.
        repo_id: for the message.

    Raises:
        HubError: if it is another file; it is taken out of the cache.
    """
    expected = file.resolve().name
    if file.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", expected):
        found = _sha256(file)
        if found != expected:
            raise _damaged(file.name, file, repo_id, found, expected)


def _damaged(name: str, file: Path, repo_id: str, found: str, expected: str) -> HubError:
    """Take a file out of the cache, and say so."""
    with contextlib.suppress(OSError):
        file.resolve().unlink()
        file.unlink(missing_ok=True)
    return HubError(
        f"{name!r} of {repo_id!r} is damaged: it has hash {found[:12]}, and the Hub lists {expected[:12]}. It was "
        "removed from the local cache. Try again; if that happens twice, a proxy or mirror changes files."
    )


def _sha256(file: Path) -> str:
    from huggingface_hub.utils.sha import sha_fileobj

    with file.open("rb") as stream:
        return sha_fileobj(stream).hex()


def _git_hash(file: Path) -> str:
    from huggingface_hub.utils.sha import git_hash

    return git_hash(file.read_bytes())
