"""Tokens are readable, whatever spells them."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ks_lottery.ticket.tokens import NO_TOKEN, readable_token, readable_tokens

STORIES = Path(__file__).resolve().parents[3] / "shared" / "models" / "stories260k"
BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def spell(text: str) -> str:
    """A text as byte-level BPE spells it."""
    return "".join(piece for piece, _ in BYTE_LEVEL.pre_tokenize_str(text))


def tokenizer(pieces: list[str], byte_level: bool) -> PreTrainedTokenizerFast:
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=not byte_level, unk_token="<unk>"))
    if byte_level:
        backend.pre_tokenizer, backend.decoder = BYTE_LEVEL, decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<unk>", special=True), AddedToken("<｜end▁of▁text｜>", special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


def test_sentencepiece_style() -> None:
    pieces = ["<unk>", "<0x0A>", "\n", "▁", "▁the", "Ġ", "###", "\t", "\u200b", "▁\n", "naïve", "的", "\xa0", "'", "|"]
    readable = readable_tokens(tokenizer(pieces, byte_level=False), range(len(pieces)))
    assert readable == [
        "<unk>", "<0x0A>", r"'\n'", "▁", "▁the", "Ġ", "###", r"'\t'", r"'\u200b'", r"'▁\n'", "naïve", "的", r"'\xa0'",
        "'", "|",
    ]  # fmt: skip


def test_byte_level_style() -> None:
    texts = [" ", " the", "\n", "  ", "###", ".\n", " naïve", "的", "\xad", "\x7f"]
    pieces = ["<unk>", *map(spell, texts), spell("的")[:2], spell("a的")[:2], "–"]
    readable = readable_tokens(tokenizer(pieces, byte_level=True), range(1, len(pieces)))
    assert readable == [
        "▁", "▁the", r"'\n'", "▁▁", "###", r"'.\n'", "▁naïve", "的", r"'\xad'", r"'\x7f'", "<0xE7><0x9A>", "a<0xE7>",
        "–",
    ]  # fmt: skip


def test_added_tokens_are_not_spelt_in_bytes() -> None:
    for byte_level in (False, True):
        one = tokenizer(["<unk>", "Ġ" if byte_level else "▁"], byte_level)
        number = one.convert_tokens_to_ids("<｜end▁of▁text｜>")
        assert readable_token(one, number) == "<｜end▁of▁text｜>"


def test_rows_beyond_the_vocabulary() -> None:
    for byte_level in (False, True):
        assert readable_tokens(tokenizer(["<unk>", "Ġ"], byte_level), [999, -1]) == [NO_TOKEN, NO_TOKEN]


@pytest.mark.skipif(not STORIES.is_dir(), reason="the shared models are not here")
def test_a_real_tokenizer_gives_one_line_for_every_row() -> None:
    real = AutoTokenizer.from_pretrained(STORIES)
    readable = readable_tokens(real, range(512))
    assert readable[13] == "<0x0A>"
    assert readable[265] == "▁the"
    assert all(text.isprintable() and text.strip() == text and text for text in readable)


@example(" ")
@given(st.text(min_size=1))
def test_byte_level_pieces_give_their_text_back(text: str) -> None:
    one = tokenizer(list(dict.fromkeys(["<unk>", spell(text), "Ġ"])), byte_level=True)
    [readable] = readable_tokens(one, [one.convert_tokens_to_ids(spell(text))])
    expected = text.replace(" ", "▁")
    assert readable == (expected if expected.isprintable() else repr(expected))
