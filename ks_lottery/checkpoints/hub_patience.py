"""Calls that `huggingface_hub` makes only once, made again where the Hub is busy or the connection broke off.

It repeats downloads and listings by itself (`http_backoff`), but neither commits nor the creation of a repository.
"""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from ks_lottery.checkpoints.hub_errors import hub_reason, retry_after

_ATTEMPTS = 3
_LONGEST_WAIT = 300  # seconds; whoever asks for more is answered by an error that says how long
_BUSY = (429, 500, 502, 503, 504)

_log = logging.getLogger(__name__)

Result = TypeVar("Result")


def patiently(call: Callable[[], Result]) -> Result:
    """Make a call to the Hub, up to three times where it is busy.

    After status 429 and 5xx it waits as long as the answer's `Retry-After` says, else 1 and then 2 seconds; after a
    connection that broke off too. One that asks for more than 300 seconds is not waited for.

    Args:
        call: must be one that may be made twice: creating what may exist, or committing the same files.

    Returns:
        what the call returns.

    Raises:
        whatever the last attempt raised.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled  # type: ignore[attr-defined]

    for attempt in range(1, _ATTEMPTS):
        try:
            return call()
        except OfflineModeIsEnabled:
            raise
        except HfHubHTTPError as error:
            asked = retry_after(error.response)
            if error.response.status_code not in _BUSY or (asked or 0) > _LONGEST_WAIT:
                raise
            wait, why = attempt if asked is None else asked, hub_reason(error)
        except HTTPError as error:
            wait, why = attempt, hub_reason(error)
        _log.warning("%s Waiting %d s before attempt %d of %d.", why, wait, attempt + 1, _ATTEMPTS)
        time.sleep(wait)
    return call()
