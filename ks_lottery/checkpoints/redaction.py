"""Texts without what must stay secret: access tokens, passwords in addresses, signatures of signed addresses."""

import os
import re

HIDDEN = "[hidden]"
_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_ID_TOKEN")
_SHORTEST = 6  # characters of a token: anything shorter would blot out ordinary words
_TOKEN = re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{16,}\b")
_BEARER = re.compile(r"(?i)\b(bearer)\s+[^\s,;'\"]+")
_USER = re.compile(r"(?<=://)[^/\s@'\"]+@")
_SIGNED = re.compile(
    r"(?i)([?&](?:[\w-]*signature|[\w-]*credential|[\w-]*token|key-pair-id|policy)=)[^&\s'\")]+"
)  # of the addresses that lead to storage


def redacted(text: str) -> str:
    """A text in which tokens, passwords and signatures are replaced by `[hidden]`.

    Hidden are: the values of HF_TOKEN and its siblings, whatever looks like a token of the Hub, what follows "Bearer",
    the user part of an address (`https://user:password@host`), and the signing parameters of one.

    Args:
        text: a message, a line of a log, or a page.
    """
    for name in _VARIABLES:
        value = os.environ.get(name, "").strip()
        if len(value) >= _SHORTEST:
            text = text.replace(value, HIDDEN)
    text = _TOKEN.sub(HIDDEN, text)
    text = _BEARER.sub(rf"\1 {HIDDEN}", text)
    text = _USER.sub(f"{HIDDEN}@", text)
    return _SIGNED.sub(rf"\1{HIDDEN}", text)


def holds_token(text: str) -> bool:
    """Whether a text holds an access token of the Hub: this user's, or anything that looks like one."""
    values = (os.environ.get(name, "").strip() for name in _VARIABLES)
    return bool(_TOKEN.search(text)) or any(len(value) >= _SHORTEST and value in text for value in values)
