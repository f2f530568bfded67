"""Files from the Hugging Face Hub, with errors that say what to do."""

from pathlib import Path
from typing import Literal, overload

from ks_lottery.checkpoints.hub_errors import hub_errors, hub_reason
from ks_lottery.errors import HubError


@overload
def download(repo_id: str, filename: str, *, revision: str | None = ..., missing_ok: Literal[False] = ...) -> Path: ...
@overload
def download(repo_id: str, filename: str, *, revision: str | None = ..., missing_ok: bool) -> Path | None: ...
def download(repo_id: str, filename: str, *, revision: str | None = None, missing_ok: bool = False) -> Path | None:
    """Fetch one file of a model repository into the local cache, or find it there.

    A file that is in the cache is found without a network too.

    Args:
        repo_id: "user/name".
        filename: path inside the repository.
        revision: branch, tag or commit; the main branch if None.
        missing_ok: return None where the repository has no such file. With HF_HUB_OFFLINE=1 the cache counts as the
            repository; without it an unreachable Hub is an error unless the cache knows that the file is missing.

    Raises:
        HubError: if the repository, revision or file does not exist or is hidden, the Hub refuses, or it cannot be
            reached and the file is not in the cache; with the way out.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    action = f"download {filename!r} of {repo_id!r}" + (f" at revision {revision!r}" if revision else "")
    try:
        with hub_errors(action):
            return Path(hf_hub_download(repo_id, filename, revision=revision))
    except LocalEntryNotFoundError as error:
        if missing_ok and _known_missing(repo_id, filename, revision):
            return None
        raise HubError(
            f"Cannot {action}, which is not in the local cache: {hub_reason(error.__cause__)} Without a "
            "network use a local folder; the recipes have an embedded model, recipes/pocket/model."
        ) from error
    except EntryNotFoundError as error:
        if missing_ok:
            return None
        raise HubError(f"Cannot {action}: the repository has no such file.") from error


def _known_missing(repo_id: str, filename: str, revision: str | None) -> bool:
    """Whether the cache answers for the Hub: offline, or the Hub has said before that there is no such file."""
    from huggingface_hub import _CACHED_NO_EXIST, is_offline_mode, try_to_load_from_cache

    return is_offline_mode() or try_to_load_from_cache(repo_id, filename, revision=revision) is _CACHED_NO_EXIST
