"""Folders to the Hugging Face Hub, and tickets from there.

To publish a tuned adapter, save it with `PeftModel.save_pretrained(folder)`, write `ticket.save(folder)` and the model
card (`ks_lottery.ticket.card.ticket_card(...).save(folder / "README.md")`) into the same folder, and push that folder.
`PeftModel.push_to_hub` would overwrite the card, and `ModelHubMixin` would add a `config.json` that keeps
`AutoModelForCausalLM.from_pretrained` from loading the adapter.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ks_lottery.checkpoints.download import download
from ks_lottery.checkpoints.file_hash import require_blob
from ks_lottery.checkpoints.hub_errors import conflict_reason, hub_errors
from ks_lottery.checkpoints.hub_patience import patiently
from ks_lottery.checkpoints.redaction import redacted
from ks_lottery.errors import HubError, OptionError
from ks_lottery.ticket.secret_files import require_no_secrets
from ks_lottery.ticket.store import SIGNATURE_FILE, TICKET_FILE

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def push_folder(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload lottery ticket",
    token: str | None = None,
) -> str:
    """Upload every file of a folder in one commit; files that the repository has besides stay.

    A Trainer's `training_args.bin` is left out: it is a pickle, and holds an access token if one was given. A ticket
    takes the signature of the one before it out of the repository, if it brings none of its own.

    Args:
        folder: what to upload, subfolders included.
        repo_id: "user/name", or "name" in your own account; created if there is none.
        private: whether a new repository is private; the account's or organisation's default if None. An existing
            repository stays as it is.
        revision: branch to commit to, created if there is none; the main branch if None.
        commit_message: headline of the commit.
        token: access token with write permission; the one of `hf auth login` or HF_TOKEN if None.

    Returns:
        URL of the commit.

    Raises:
        OptionError: if the folder does not exist or holds no file, or holds a private key, the key of a mark or an
            access token; nothing is uploaded then.
        HubError: if the Hub cannot be reached, is busy for three attempts, refuses, or finds the model card's metadata
            invalid; with the way out.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    folder = Path(folder)
    if not any(path.is_file() for path in folder.rglob("*")):
        raise OptionError(f"There is no file in {str(folder)!r} to push. Save a ticket or an adapter there first.")
    require_no_secrets(folder)
    api = HfApi(token=token)
    with hub_errors(f"push {folder.resolve().name!r} to {repo_id!r}"):
        name = _create(api, repo_id, private)
        if revision is not None:
            patiently(lambda: api.create_branch(name, branch=revision, exist_ok=True))
        try:
            commit = patiently(
                lambda: api.upload_folder(
                    repo_id=name,
                    folder_path=folder,
                    revision=revision,
                    commit_message=commit_message,
                    ignore_patterns="*training_args.bin",
                    delete_patterns=SIGNATURE_FILE if (folder / TICKET_FILE).is_file() else None,
                )
            )
        except ValueError as error:
            if isinstance(error, HfHubHTTPError):
                raise
            raise HubError(
                f"The Hub refuses to take {folder.resolve().name!r} into {name!r}: {redacted(str(error))} Correct the "
                "metadata at the head of README.md."
            ) from error
    return str(commit.commit_url)


def _create(api: "HfApi", repo_id: str, private: bool | None) -> str:
    """Create a repository if there is none; its whole id."""
    try:
        return str(patiently(lambda: api.create_repo(repo_id, private=private, exist_ok=True)).repo_id)
    except KeyError as error:  # the library takes every conflict for one with a repository, and reads its address
        raise HubError(f"Cannot create {repo_id!r}: {conflict_reason()}") from error


def pull_ticket_file(repo_id: str, revision: str | None = None) -> Path:
    """Fetch the ticket of a repository into the local cache, or find it there.

    Args:
        repo_id: "user/name".
        revision: branch, tag or commit; the main branch if None.

    Returns:
        path of `ticket.safetensors`, for `Ticket.load`.

    Raises:
        HubError: if there is no such repository or it holds no ticket, the Hub cannot be reached, or the file is
            another one than it lists; with the way out.
    """
    file = download(repo_id, TICKET_FILE, revision=revision)
    require_blob(file, repo_id)
    return file
