"""A text as a square of cells with error correction, after the QR code, and back."""

import zlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ks_lottery.errors import OptionError, TicketError
from ks_lottery.ticket.ownership.libraries import library
from ks_lottery.ticket.ownership.stream import keyed_bytes

SIZES = tuple(range(21, 58, 4))
"""Cells along a side: those of QR versions 1 to 10."""

_HEADER = 5  # bytes: length of the text, CRC-32 of the text
_CODEWORD = 255  # most bytes of one Reed-Solomon code word
_SHARE = 0.30  # of the bytes of a code word that can be wrong
_FINDER = 8  # cells along a side of a finder pattern with its white border
_TIMING = 6  # row and column of the alternating cells between finder patterns

Cells = NDArray[np.bool_]


def written_cells(size: int) -> Cells:
    """Which cells carry the text: all but three finder patterns in corners and the two timing lines between them.

    Args:
        size: cells along a side, one of `SIZES`.

    Returns:
        [size, size] bool.

    Raises:
        OptionError: if there is no such size.
    """
    require_size(size)
    written = np.ones((size, size), dtype=bool)
    for row, column in _corners(size):
        written[row : row + _FINDER, column : column + _FINDER] = False
    written[_TIMING, :] = written[:, _TIMING] = False
    return written


def restored(cells: Cells) -> Cells:
    """The same cells with finder patterns and timing lines drawn where they belong, for people and QR tools to see."""
    size = len(cells)
    picture = np.where(written_cells(size), cells, False)
    picture[_TIMING, _FINDER : size - _FINDER] = np.arange(_FINDER, size - _FINDER) % 2 == 0
    picture[_FINDER : size - _FINDER, _TIMING] = np.arange(_FINDER, size - _FINDER) % 2 == 0
    steps = np.abs(np.arange(7) - 3)
    rings = np.maximum.outer(steps, steps)
    for row, column in _corners(size):
        top, left = row + (row > 0), column + (column > 0)  # the border lies towards the middle
        picture[top : top + 7, left : left + 7] = rings != 2
    return picture


def capacity(size: int) -> int:
    """Most bytes of text, as UTF-8, that a square of this size carries; errors as `written_cells`."""
    return sum(data for data, _ in _code_words(size)) - _HEADER


def correctable(size: int) -> tuple[tuple[int, int], ...]:
    """What the code corrects for certain: (bytes, wrong ones) of each code word.

    A byte is eight cells that follow each other in a row. If single cells flip at random with probability e, a byte is
    wrong with probability 1 - (1 - e)^8: 30 % of the bytes are 4.4 % of the cells if these lie apart, and 30 % of them
    if they lie together. Errors as `written_cells`.
    """
    return tuple((data + check, check // 2) for data, check in _code_words(size))


def size_for(text: str) -> int:
    """The smallest size that carries a text.

    Raises:
        OptionError: if the text is empty, or too long for every size.
    """
    length = len(text.encode())
    if not length:
        raise OptionError("The credential is empty. Give a text that names the owner.")
    for size in SIZES:
        if length <= capacity(size):
            return size
    raise OptionError(
        f"The credential has {length} bytes, and the largest pattern ({SIZES[-1]} x {SIZES[-1]} cells) carries "
        f"{capacity(SIZES[-1])}. Shorten it, or give its hash instead."
    )


def encode(text: str, size: int | None = None) -> Cells:
    """A text as cells.

    The text and its padding are mixed with a stream that its CRC seeds, so that other texts, however similar, give
    unrelated cells but for the eight of the length.

    Args:
        text: an owner's name, address, or the hash of a document.
        size: cells along a side; the smallest that fits if None. More cells make a claim's p-value smaller.

    Returns:
        [size, size] bool; finder patterns and timing lines are drawn.

    Raises:
        OptionError: if the text is empty or too long for the size, or there is no such size, or the library reedsolo is
            missing.
    """
    size = size_for(text) if size is None else size
    content, room = text.encode(), capacity(size)
    if not 0 < len(content) <= room:
        raise OptionError(
            f"The credential has {len(content)} bytes, and {size} x {size} cells carry from 1 to {room}. Shorten "
            "it, or use a larger size."
        )
    crc = zlib.crc32(content).to_bytes(4, "big")
    data = bytes([len(content)]) + crc + _mixed(content.ljust(room, b"\0"), crc)
    coded, start = b"", 0
    for length, check in _code_words(size):
        coded += bytes(library("reedsolo").RSCodec(check).encode(data[start : start + length]))
        start += length
    bits = np.unpackbits(np.frombuffer(coded, dtype=np.uint8)).astype(bool)
    cells, written = np.zeros((size, size), dtype=bool), written_cells(size)
    cells[written] = np.concatenate([bits, np.zeros(written.sum() - len(bits), dtype=bool)])
    return restored(cells)


def decode(cells: Cells) -> str:
    """The text that cells carry, with wrong cells corrected as `correctable` says.

    Args:
        cells: [size, size] bool; what stands in finder patterns and timing lines is not looked at.

    Raises:
        TicketError: if too many cells are wrong, or the cells carry no text.
        OptionError: if there is no such size, or the library reedsolo is missing.
    """
    size = len(cells)
    reedsolo = library("reedsolo")
    coded = np.packbits(cells[written_cells(size)][: 8 * sum(map(sum, _code_words(size)))]).tobytes()
    data, start = b"", 0
    for number, (length, check) in enumerate(_code_words(size)):
        word = coded[start : start + length + check]
        start += length + check
        try:
            data += bytes(reedsolo.RSCodec(check).decode(word)[0])
        except reedsolo.ReedSolomonError as error:
            raise TicketError(
                f"The {size} x {size} cells cannot be decoded: code word {number} has more than {check // 2} wrong "
                f"bytes of {len(word)}. Verify by the share of matching cells instead."
            ) from error
    room, length, crc = capacity(size), data[0], data[1:_HEADER]
    body = _mixed(data[_HEADER:], crc)
    if not 0 < length <= room or body[length:].strip(b"\0") or zlib.crc32(body[:length]).to_bytes(4, "big") != crc:
        raise TicketError(f"The {size} x {size} cells carry no credential: length and checksum do not fit.")
    try:
        return body[:length].decode()
    except UnicodeDecodeError as error:
        raise TicketError(f"The {size} x {size} cells carry no credential: its bytes are no UTF-8.") from error


def require_size(size: int) -> None:
    """Check the number of cells along a side.

    Raises:
        OptionError: if it is not one of `SIZES`.
    """
    if size not in SIZES:
        raise OptionError(f"A pattern of {size} x {size} cells: the side must be one of {', '.join(map(str, SIZES))}.")


@lru_cache(maxsize=len(SIZES))
def _code_words(size: int) -> tuple[tuple[int, int], ...]:
    """(data bytes, check bytes) of each code word: as few and as equal words as hold all whole bytes."""
    total = int(written_cells(size).sum()) // 8
    count = -(-total // _CODEWORD)
    lengths = [total // count + (number < total % count) for number in range(count)]
    return tuple((length - 2 * round(_SHARE * length), 2 * round(_SHARE * length)) for length in lengths)


def _corners(size: int) -> tuple[tuple[int, int], ...]:
    """First row and column of each finder pattern with its border: no pattern at the bottom right."""
    return (0, 0), (0, size - _FINDER), (size - _FINDER, 0)


def _mixed(body: bytes, crc: bytes) -> bytes:
    """The body XORed with the stream of its checksum; its own inverse."""
    stream = keyed_bytes(crc, "ks_lottery credential", len(body))
    return bytes(one ^ other for one, other in zip(body, stream, strict=True))
