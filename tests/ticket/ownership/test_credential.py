"""A text comes back from its cells, with as many wrong ones as the code corrects and not more."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ks_lottery.errors import OptionError, TicketError
from ks_lottery.ticket.ownership.credential import (
    SIZES,
    capacity,
    correctable,
    decode,
    encode,
    restored,
    size_for,
    written_cells,
)


@given(st.text(min_size=1, max_size=35).filter(lambda text: len(text.encode("utf-8", "ignore")) > 0))
@settings(deadline=None, max_examples=50)
def test_a_text_comes_back(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    cells = encode(text)
    assert cells.shape == (size_for(text),) * 2
    assert decode(cells) == text


@pytest.mark.parametrize("size", SIZES)
def test_every_size_is_filled_to_the_last_byte(size: int) -> None:
    text = "x" * capacity(size)
    assert decode(encode(text, size)) == text
    assert size_for(text) == size
    with pytest.raises(OptionError, match=f"has {len(text) + 1} bytes, and {size} x {size} cells carry from 1 to"):
        encode(text + "x", size)


def test_sizes_and_what_they_correct() -> None:
    assert [capacity(size) for size in SIZES] == [6, 16, 26, 38, 52, 66, 84, 102, 122, 142]
    assert written_cells(29).sum() == 29 * 29 - 3 * 64 - 2 * 13 == 623
    for size in SIZES:
        assert all(abs(wrong / total - 0.30) < 0.02 for total, wrong in correctable(size))
        assert sum(total for total, _ in correctable(size)) == written_cells(size).sum() // 8


@pytest.mark.parametrize("size", [21, 29, 49])
def test_exactly_so_many_bytes_are_corrected(size: int) -> None:
    """Every wrong byte has all eight cells wrong."""
    cells, written = encode("Ada", size), np.flatnonzero(written_cells(size))
    start = 0
    for total, wrong in correctable(size):
        places = np.random.default_rng(size).permutation(total)[: wrong + 1]
        cells_of = [written[8 * (start + place) : 8 * (start + place) + 8] for place in places]
        damaged = cells.copy()
        damaged.ravel()[np.concatenate(cells_of[:wrong])] ^= True
        assert decode(damaged) == "Ada"
        damaged.ravel()[cells_of[wrong]] ^= True
        with pytest.raises(TicketError, match=f"has more than {wrong} wrong bytes of {total}"):
            decode(damaged)
        start += total


def test_finder_patterns_are_as_in_a_qr_code_and_carry_nothing() -> None:
    cells = encode("Ada Lovelace, London")
    rings = ["#######", "#.....#", "#.###.#", "#.###.#", "#.###.#", "#.....#", "#######"]
    wanted = np.array([[letter == "#" for letter in row] for row in rings])
    for corner in (cells[:7, :7], cells[:7, -7:], cells[-7:, :7]):
        assert (corner == wanted).all()
    assert not cells[7, :8].any()
    assert not cells[:8, 7].any()
    assert not cells[7, -8:].any()
    assert not cells[-8, :8].any()
    assert cells[6, 8:-8].tolist() == [True, False] * 6 + [True]
    assert cells[8:-8, 6].tolist() == [True, False] * 6 + [True]
    hidden = np.where(written_cells(29), cells, ~cells)
    assert decode(hidden) == "Ada Lovelace, London"
    assert (restored(hidden) == cells).all()


def test_other_texts_give_unrelated_cells() -> None:
    """Also texts that differ in one letter: only the length is in common."""
    written = written_cells(29)
    first = encode("owner number 0", 29)[written]
    matches = [(encode(f"owner number {number}", 29)[written] == first).mean() for number in range(1, 10)]
    assert min(matches) > 0.44
    assert max(matches) < 0.57


def test_noise_is_no_credential() -> None:
    generator = np.random.default_rng(0)
    for size in (21, 29):
        with pytest.raises(TicketError, match="cannot be decoded"):
            decode(generator.random((size, size)) < 0.5)
    with pytest.raises(TicketError, match="carry no credential: length and checksum do not fit"):
        decode(np.zeros((29, 29), dtype=bool))  # a code word of Reed-Solomon, but no text


def test_wrong_texts_and_sizes() -> None:
    with pytest.raises(OptionError, match="The credential is empty"):
        encode("")
    with pytest.raises(OptionError, match=r"has 143 bytes, and the largest pattern \(57 x 57 cells\) carries 142"):
        encode("x" * 143)
    with pytest.raises(OptionError, match="A pattern of 22 x 22 cells: the side must be one of 21, 25, "):
        encode("x", 22)
    with pytest.raises(OptionError, match="A pattern of 20 x 20 cells"):
        decode(np.zeros((20, 20), dtype=bool))


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reedsolo", None)
    with pytest.raises(OptionError, match=r"'reedsolo', which is not installed. Install it: pip install 'ks_lottery\["):
        encode("Ada")
