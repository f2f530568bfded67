"""Tokens as people can read them, whatever kind of tokenizer they come from."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

NO_TOKEN = "<no token>"


class TokenTable(Protocol):
    """What is asked of a tokenizer; every tokenizer of transformers has it."""

    def convert_ids_to_tokens(self, ids: int, /) -> str | None:
        """The piece with this number, as the vocabulary spells it."""
        ...

    def convert_tokens_to_ids(self, tokens: str, /) -> int | None:
        """The number of a piece; the unknown token's, or None, where the vocabulary lacks it."""
        ...


def readable_token(tokenizer: TokenTable, token_id: int) -> str:
    r"""One token in one line of printable characters.

    A space is written `▁` whatever the tokenizer writes (`Ġthe` and `▁the` both give `▁the`), bytes that are no whole
    character stay `<0xE2>`, and only a token with control or invisible characters is quoted (`'\n'`).

    Args:
        tokenizer: a tokenizer of transformers.
        token_id: number of the token, which is the number of its embedding row.

    Returns:
        the readable form; `<no token>` for a row beyond the vocabulary, as padded embeddings have.
    """
    return readable_tokens(tokenizer, [token_id])[0]


def readable_tokens(tokenizer: TokenTable, ids: Iterable[int]) -> list[str]:
    """Readable forms of many tokens, in the order given; as `readable_token`."""
    byte_level = _is_byte_level(tokenizer)
    added: Mapping[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
    readable = []
    for token_id in map(int, ids):
        try:
            piece = tokenizer.convert_ids_to_tokens(token_id)
        except (IndexError, OverflowError, KeyError):
            piece = None
        if piece is None:
            readable.append(NO_TOKEN)
            continue
        readable.append(_printable(_from_byte_level(piece) if byte_level and token_id not in added else piece))
    return readable


def _printable(text: str) -> str:
    text = text.replace(" ", "▁")
    return text if text and text.isprintable() else repr(text)


def _is_byte_level(tokenizer: TokenTable) -> bool:
    """Whether pieces spell bytes as the letters of GPT-2; a SentencePiece vocabulary has a bare `▁` as well."""
    return _has_piece(tokenizer, "Ġ") and not _has_piece(tokenizer, "▁")


def _has_piece(tokenizer: TokenTable, piece: str) -> bool:
    number = tokenizer.convert_tokens_to_ids(piece)
    return number is not None and tokenizer.convert_ids_to_tokens(number) == piece


def _letter_to_byte() -> dict[str, int]:
    """The spelling of byte-level BPE: printable Latin-1 stands for itself, the 68 other bytes for U+0100 onwards."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_LETTER_TO_BYTE = _letter_to_byte()


def _from_byte_level(piece: str) -> str:
    """Text of a byte-level piece; bytes that are no whole character as `<0xE2>`."""
    if not all(letter in _LETTER_TO_BYTE for letter in piece):
        return piece
    text = bytes(_LETTER_TO_BYTE[letter] for letter in piece).decode("utf-8", errors="surrogateescape")
    return "".join(f"<0x{ord(c) - 0xDC00:02X}>" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in text)
