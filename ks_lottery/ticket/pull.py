"""A ticket's repository from the Hugging Face Hub, as a folder that is whole or absent."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ks_lottery.checkpoints.download import download
from ks_lottery.checkpoints.file_hash import require_hashes
from ks_lottery.checkpoints.hub_errors import hub_errors
from ks_lottery.checkpoints.writer import atomic_folder
from ks_lottery.errors import OptionError
from ks_lottery.ticket.hub import pull_ticket_file
from ks_lottery.ticket.ownership.signature_check import check_signature
from ks_lottery.ticket.store import SIGNATURE_FILE, TICKET_FILE
from ks_lottery.ticket.ticket import Ticket

_TAKEN = (".safetensors", ".json", ".md", ".txt", ".png", ".model", ".jinja")
"""Files of other kinds stay on the Hub: pickles and code can do harm, and a ticket needs none."""


def pull_folder(
    repo_id: str, folder: str | os.PathLike[str], *, revision: str | None = None, ticket_only: bool = False
) -> Ticket:
    """Fetch a ticket, and the adapter, card and report beside it, into a folder.

    Every file is of one commit, and is compared with the hash that the Hub lists for it. A signature beside the ticket
    is checked (`check_signature`) before anything takes the folder's place.

    Args:
        repo_id: "user/name".
        folder: where to; an older folder there is replaced as a whole, and stays as it is if anything goes wrong.
        revision: branch, tag or commit; the main branch if None.
        ticket_only: fetch `ticket.safetensors` and its signature alone.

    Returns:
        the ticket.

    Raises:
        HubError: if the repository does not exist, is hidden or holds no ticket, the Hub refuses or cannot be reached,
            or a file is not the one that the Hub lists; with the way out.
        TicketError: if what is there is damaged or no ticket, or its signature is forged or of another ticket.
        OptionError: if the folder is there and holds no ticket: it would be replaced.
    """
    _require_replaceable(Path(folder))
    commit = pull_ticket_file(repo_id, revision).parent.name
    listing = _listing(repo_id, commit)
    wanted = [name for name in sorted(listing) if _is_wanted(name, ticket_only)]
    files = {name: download(repo_id, name, revision=commit) for name in wanted}
    require_hashes(files, listing, repo_id)
    with atomic_folder(folder) as temporary:
        for name, file in files.items():
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        ticket = Ticket.load(temporary)
        check_signature(ticket, temporary)
        return ticket


def _listing(repo_id: str, commit: str) -> Mapping[str, Any]:
    """Path to entry of every file of a commit."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    with hub_errors(f"list the files of {repo_id!r} at revision {commit!r}"):
        entries = list(HfApi().list_repo_tree(repo_id, revision=commit, recursive=True))
    return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def _is_wanted(name: str, ticket_only: bool) -> bool:
    path = PurePosixPath(name)
    if path.is_absolute() or any(part.startswith(".") or "\\" in part for part in path.parts):
        return False
    return name in (TICKET_FILE, SIGNATURE_FILE) if ticket_only else path.suffix in _TAKEN or path.name == "LICENSE"


def _require_replaceable(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()) and not (folder / TICKET_FILE).is_file():
        raise OptionError(
            f"{str(folder)!r} is there and holds no ticket, and pulling would replace all that is in it. Give another "
            "folder."
        )
