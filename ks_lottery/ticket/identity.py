"""Which base model a ticket belongs to: names, shapes and a digest of sampled weights."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ks_lottery.checkpoints.checkpoint import Checkpoint
from ks_lottery.errors import TicketError
from ks_lottery.stats.floats import FORMATS, FloatBits, bits_of

_SAMPLED_ROWS = 256
_PIECE = 2**20  # values


@dataclass(frozen=True)
class BaseIdentity:
    """The base model of a ticket.

    Attributes:
        name: folder, Hub id or class name it was read from; shown, not compared.
        revision: its Hub commit, or None; shown, not compared.
        model_type: transformers' name of the architecture.
        shapes: shapes of the parameters that the ticket's units lie in.
        num_parameters: single weights of the whole model, tied ones counted once.
        digest: hex SHA-256 over `model_type`, `shapes` and sampled weights.
    """

    name: str
    revision: str | None
    model_type: str
    shapes: Mapping[str, tuple[int, ...]]
    num_parameters: int
    digest: str

    def require_same(self, other: "BaseIdentity") -> None:
        """Check that two identities are of one base model.

        Raises:
            TicketError: if they are not; the message says what differs.
        """
        if self.digest == other.digest:
            return
        differences = []
        if self.model_type != other.model_type:
            differences.append(f"architecture {self.model_type!r} and {other.model_type!r}")
        for parameter in sorted({*self.shapes, *other.shapes}):
            mine, theirs = self.shapes.get(parameter), other.shapes.get(parameter)
            if mine != theirs:
                differences.append(f"{parameter!r} of shape {mine} and {theirs}")
        if not differences:
            differences.append("the same architecture and shapes, but other weights")
        raise TicketError(
            f"The ticket belongs to the base model {self.name!r}, not to {other.name!r}: {'; '.join(differences)}. "
            "Load the base model that the ticket was found on, or find a new ticket."
        )

    def to_dict(self) -> dict[str, object]:
        """A JSON form that `from_dict` reads back."""
        return {
            "name": self.name,
            "revision": self.revision,
            "model_type": self.model_type,
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "num_parameters": self.num_parameters,
            "digest": self.digest,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> "BaseIdentity":
        """Read what `to_dict` wrote."""
        shapes = {str(name): tuple(shape) for name, shape in data["shapes"].items()}  # type: ignore[attr-defined]
        return cls(**{**data, "shapes": shapes})  # type: ignore[arg-type]


def identify(checkpoint: Checkpoint, parameters: Iterable[str]) -> BaseIdentity:
    """Identity of a base model, for tickets whose units lie in the given parameters.

    The digest covers 256 evenly spaced rows of each parameter, rounded to bfloat16: a float32 checkpoint and the same
    one loaded in bfloat16 are the same base, while any fine-tuning that moved one of these rows by more than rounding
    makes another.

    Cost:
        Reads 256 rows of each parameter.
    """
    shapes = {name: checkpoint.shape(name) for name in sorted(parameters)}
    header = {"model_type": checkpoint.model_type, "shapes": {k: list(v) for k, v in shapes.items()}}
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, shape in shapes.items():
        for piece in _sampled(checkpoint, name, shape):
            digest.update(piece.tobytes())
    return BaseIdentity(
        name=checkpoint.name,
        revision=checkpoint.revision,
        model_type=checkpoint.model_type,
        shapes=shapes,
        num_parameters=checkpoint.num_parameters(),
        digest=digest.hexdigest(),
    )


def _sampled(checkpoint: Checkpoint, name: str, shape: tuple[int, ...]) -> Iterator[NDArray[np.int16]]:
    """Evenly spaced rows of a parameter as bits of bfloat16, one after the other, in pieces."""
    size = shape[0] if shape else 1
    count = min(_SAMPLED_ROWS, size)
    rows = [i * (size - 1) // max(1, count - 1) for i in range(count)]
    at_once = max(1, _PIECE // max(1, math.prod(shape[1:])))
    for first in range(0, count, at_once):
        some = [_flat(checkpoint, name, row, copy=at_once > 1) for row in rows[first : first + at_once]]
        values = FloatBits(
            some[0].array if len(some) == 1 else np.concatenate([row.array for row in some]), some[0].dtype
        )
        for start in range(0, len(values), _PIECE):
            yield _bfloat16(values[start : start + _PIECE])
        checkpoint.release(name)


def _flat(checkpoint: Checkpoint, name: str, row: int, copy: bool) -> FloatBits:
    """One row as flat bits. A copy lets its pages go at once: the system may have mapped far more than the row."""
    if checkpoint.dtype(name) not in FORMATS:
        import torch

        return bits_of(checkpoint.rows(name, row, row + 1).to(torch.bfloat16).reshape(-1))
    bits = checkpoint.bits(name, row, row + 1)
    bits = bits.reshape(bits.array.size)
    if copy:
        bits = FloatBits(bits.array.copy(), bits.dtype)
        checkpoint.release(name)
    return bits


def _bfloat16(bits: FloatBits) -> NDArray[np.int16]:
    """Bits rounded to bfloat16, to the nearest and on a tie to the even one; every NaN becomes the same one."""
    if bits.dtype == "bfloat16":
        return bits.array
    with np.errstate(over="ignore", invalid="ignore"):
        single = bits.values().astype(np.float32)
    pattern = single.view(np.uint32)
    rounded = (pattern + np.uint32(0x7FFF) + ((pattern >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(single), np.uint32(0x7FC0), rounded).astype(np.uint16).view(np.int16)
