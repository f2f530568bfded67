"""What the Hugging Face Hub says when it says no, as errors that tell the way out."""

import contextlib
from collections.abc import Iterator

from ks_lottery.errors import HubError


@contextlib.contextmanager
def hub_errors(action: str) -> Iterator[None]:
    """Turn what `huggingface_hub` raises inside the block into `HubError`.

    Args:
        action: what the block does, to follow "Cannot" ("download 'config.json' of 'user/model'").

    Raises:
        HubError: with the action, the reason and the way out. Errors of the local disk, and a file that a repository
            lacks (`EntryNotFoundError`), pass as they are.
    """
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, HTTPError  # type: ignore[attr-defined]

    try:
        yield
    except EntryNotFoundError:
        raise
    except (HFValidationError, HTTPError, ConnectionError) as error:
        raise HubError(f"Cannot {action}: {hub_reason(error)}") from error


def hub_reason(error: BaseException | None) -> str:
    """Why a call to the Hub failed, and what to do about it.

    Args:
        error: what `huggingface_hub` or its HTTP client raised.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, HFValidationError):
        return f"that is not a Hub id. One looks like 'user/name'; a local folder must exist. ({error})"
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set. Unset it to reach the Hub."
    if isinstance(error, GatedRepoError):
        return "the repository is gated. Accept its conditions on its page, then log in with `hf auth login`."
    if isinstance(error, RepositoryNotFoundError):
        return (
            "the Hub has no such repository, or hides it because it is private. Check the spelling (a local folder "
            "must exist), or log in with `hf auth login`."
        )
    if isinstance(error, RevisionNotFoundError):
        return "the repository has no such revision. Use one of its branches, tags or commits."
    if isinstance(error, HfHubHTTPError):
        return _status_reason(error.response.status_code, error.server_message)
    return (
        f"the Hub at {constants.ENDPOINT} cannot be reached ({error}). Check the network, a proxy, or HF_ENDPOINT; "
        "HF_HUB_OFFLINE=1 uses what was downloaded before."
    )


def _status_reason(status: int, message: str | None) -> str:
    said = f" ({message})" if message else ""
    if status == 401:
        return f"the Hub does not know you{said}. Log in with `hf auth login`, or set HF_TOKEN to a valid token."
    if status == 403:
        return (
            f"your account or token may not do that{said}. Use a repository of yours or of your organisation, and a "
            "token with write permission."
        )
    if status == 429 or status >= 500:
        return f"the Hub answered with status {status}{said}. Try again later."
    return f"the Hub answered with status {status}{said}."
