"""The owner's half of a mark: the secret, the claimed text, and the place. Nothing of it is in the ticket."""

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ks_lottery.checkpoints.strict_json import strict_json_file
from ks_lottery.errors import LotteryError, TicketError
from ks_lottery.ticket.ownership.cells import require_block
from ks_lottery.ticket.ownership.credential import encode, size_for, written_cells
from ks_lottery.ticket.ownership.private_file import write_private_json
from ks_lottery.ticket.ownership.stream import keyed_bits, require_secret

_FORMAT = 1


@dataclass(frozen=True)
class MarkKey:
    """What finds and reads a mark. To show it is to give it away.

    Attributes:
        text: the credential.
        secret: 32 bytes that the written cells depend on.
        parameter: the matrix that is marked.
        row, column: first cell of the pattern.
        block: weights along a side of a cell.
        size: cells along a side of the pattern.

    Raises:
        OptionError: if a number is one that a mark cannot have, or the text does not fit the size.
    """

    text: str
    secret: bytes = field(repr=False)
    parameter: str = field(repr=False)
    row: int = field(repr=False)
    column: int = field(repr=False)
    block: int
    size: int

    def __post_init__(self) -> None:
        require_block(self.block)
        require_secret(self.secret)
        self.pattern()

    def pattern(self) -> NDArray[np.bool_]:
        """[size, size] bool: the cells as they are written."""
        return keyed_pattern(self.text, self.secret, self.size)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the key as JSON that only its owner can read.

        Raises:
            OptionError: if something is there already.
        """
        write_private_json(path, {**asdict(self), "secret": self.secret.hex(), "format": _FORMAT})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "MarkKey":
        """Read what `save` wrote.

        Raises:
            TicketError: if there is no such file, or it is damaged or no mark key.
        """
        if not Path(path).is_file():
            raise TicketError(f"There is no mark key at {str(path)!r}. ks-lottery sign --mark writes one.")
        try:
            return cls._from_json(strict_json_file(Path(path)))
        except (KeyError, TypeError, ValueError, LotteryError) as error:
            raise TicketError(f"{str(path)!r} is damaged or no mark key: {error}.") from error

    @classmethod
    def _from_json(cls, data: Any) -> "MarkKey":
        if not isinstance(data, dict) or data.pop("format", None) != _FORMAT:
            raise ValueError(f"it has no format {_FORMAT}")
        texts, numbers = ("text", "secret", "parameter"), ("row", "column", "block", "size")
        if sorted(data) != sorted((*texts, *numbers)):
            raise ValueError(f"it has {sorted(data)} and must have {sorted((*texts, *numbers))}")
        if not all(isinstance(data[name], str) for name in texts):
            raise ValueError(f"{', '.join(texts)} must be texts")
        if not all(type(data[name]) is int and data[name] >= 0 for name in numbers):
            raise ValueError(f"{', '.join(numbers)} must be whole numbers from 0")
        return cls(**{**data, "secret": bytes.fromhex(data["secret"])})


def keyed_pattern(text: str, secret: bytes, size: int | None = None) -> NDArray[np.bool_]:
    """The cells that a mark writes: the credential's, XORed with a stream of the secret.

    Args:
        text: the credential.
        secret: 32 bytes.
        size: cells along a side; the smallest that fits if None.

    Returns:
        [size, size] bool; False where nothing is written.

    Raises:
        OptionError: if the text does not fit, or the secret is not 32 bytes long.
    """
    return unmasked(encode(text, size_for(text) if size is None else size), secret)


def unmasked(cells: NDArray[np.bool_], secret: bytes) -> NDArray[np.bool_]:
    """Cells with the secret's stream taken off or put on: its own inverse; unwritten cells become False."""
    require_secret(secret)
    written = written_cells(len(cells))
    result = np.zeros_like(cells)
    result[written] = cells[written] ^ keyed_bits(secret, "ks_lottery mark", int(written.sum()))
    return result
