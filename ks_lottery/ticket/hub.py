"""Folders to the Hugging Face Hub, and tickets from there.

To publish a tuned adapter, save it with `PeftModel.save_pretrained(folder)`, write `ticket.save(folder)` and the model
card (`ks_lottery.ticket.card.ticket_card(...).save(folder / "README.md")`) into the same folder, and push that folder.
`PeftModel.push_to_hub` would overwrite the card, and `ModelHubMixin` would add a `config.json` that keeps
`AutoModelForCausalLM.from_pretrained` from loading the adapter.
"""

import os
from pathlib import Path

from ks_lottery.checkpoints.download import download
from ks_lottery.checkpoints.hub_errors import hub_errors
from ks_lottery.errors import HubError, OptionError
from ks_lottery.ticket.store import TICKET_FILE


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
        OptionError: if the folder does not exist or holds no file.
        HubError: if the Hub cannot be reached, refuses, or finds the model card's metadata invalid; with the way out.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    folder = Path(folder)
    if not any(path.is_file() for path in folder.rglob("*")):
        raise OptionError(f"There is no file in {str(folder)!r} to push. Save a ticket or an adapter there first.")
    api = HfApi(token=token)
    with hub_errors(f"push {str(folder)!r} to {repo_id!r}"):
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        try:
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=folder, revision=revision, commit_message=commit_message
            )
        except ValueError as error:
            if isinstance(error, HfHubHTTPError):
                raise
            raise HubError(
                f"The Hub refuses to take {str(folder)!r} into {repo_id!r}: {error} Correct the metadata at the head "
                "of README.md."
            ) from error
    return str(commit.commit_url)


def pull_ticket_file(repo_id: str, revision: str | None = None) -> Path:
    """Fetch the ticket of a repository into the local cache, or find it there.

    Args:
        repo_id: "user/name".
        revision: branch, tag or commit; the main branch if None.

    Returns:
        path of `ticket.safetensors`, for `Ticket.load`.

    Raises:
        HubError: if there is no such repository or it holds no ticket, or the Hub cannot be reached; with the way out.
    """
    return download(repo_id, TICKET_FILE, revision=revision)
