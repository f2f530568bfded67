"""What the Hugging Face Hub says when it says no, as errors that tell the way out."""

import contextlib
from collections.abc import Iterator
from typing import Any

from ks_lottery.checkpoints.redaction import redacted
from ks_lottery.errors import HubError

_CUT_SHORT = "Consistency check failed"  # how huggingface_hub begins when a file has another size than announced


@contextlib.contextmanager
def hub_errors(action: str) -> Iterator[None]:
    """Turn what `huggingface_hub` raises inside the block into `HubError`.

    Args:
        action: what the block does, to follow "Cannot" ("download 'config.json' of 'user/model'").

    Raises:
        HubError: with the action, the reason and the way out, and without tokens. Errors of the local disk, and a file
            that a repository lacks (`EntryNotFoundError`), pass as they are.
    """
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, HTTPError  # type: ignore[attr-defined]

    try:
        yield
    except EntryNotFoundError:
        raise
    except (HFValidationError, HTTPError, ConnectionError) as error:
        raise HubError(f"Cannot {action}: {hub_reason(error)}") from error
    except OSError as error:
        if not str(error).startswith(_CUT_SHORT):
            raise
        raise HubError(
            f"Cannot {action}: what arrived is not as long as the Hub announced. Nothing of it was kept. Try again."
        ) from error


def hub_reason(error: BaseException | None) -> str:
    """Why a call to the Hub failed, and what to do about it.

    Args:
        error: what `huggingface_hub` or its HTTP client raised.

    Returns:
        one or two sentences without any token, password or signature.
    """
    return redacted(_reason(error))


def _reason(error: BaseException | None) -> str:
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
        return _status_reason(error.response, error.server_message)
    if _broke_off(error):
        return (
            f"the connection to the Hub at {constants.ENDPOINT} broke off ({error}). Nothing half "
            "fetched was kept. Check the network, and try again."
        )
    return (
        f"the Hub at {constants.ENDPOINT} cannot be reached ({error}). Check the network, a proxy, or HF_ENDPOINT; "
        "HF_HUB_OFFLINE=1 uses what was downloaded before."
    )


def retry_after(response: Any) -> int | None:
    """Seconds that an answer asks to wait, by its header `Retry-After`; None where it gives no number of them.

    Args:
        response: of the HTTP client.
    """
    value = str(response.headers.get("Retry-After", "")).strip()
    return int(value) if value.isdecimal() else None


def conflict_reason(said: str = "") -> str:
    """What a conflict means.

    Args:
        said: what the Hub said of it, in brackets with a space before.
    """
    return (
        f"somebody else changes the repository at the same time, or it holds something of that name{said}. Look at its "
        "page, and try again or give another name or revision."
    )


def _broke_off(error: BaseException | None) -> bool:
    """Whether a connection was there and ended before its time."""
    return type(error).__name__ in ("RemoteProtocolError", "ReadError", "WriteError", "ReadTimeout", "WriteTimeout")


def _status_reason(response: Any, message: str | None) -> str:
    status: int = response.status_code
    said = f" ({message})" if message else ""
    if status == 401:
        return f"the Hub does not know you{said}. Log in with `hf auth login`, or set HF_TOKEN to a valid token."
    if status == 403:
        return (
            f"your account or token may not do that{said}. Use a repository of yours or of your organisation, and a "
            "token with write permission; or ask its owner for access."
        )
    if status == 404:
        return f"the Hub has nothing of that name{said}. Check the name of the repository, and the revision."
    if status in (409, 412):
        return conflict_reason(said)
    if status == 429:
        seconds = retry_after(response)
        when = "later" if seconds is None else f"in {seconds:,} seconds, as it asks"
        return f"the Hub answered with status 429{said}: too many requests. Try again {when}."
    if status >= 500:
        return f"the Hub answered with status {status}{said}. Try again later."
    return f"the Hub answered with status {status}{said}."
