"""The header of a safetensors file: which tensors lie where. Nothing in it is believed unless it fits the file."""

import math
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeGuard

from ks_lottery.checkpoints.dtypes import ITEM_BYTES, TORCH_NAMES
from ks_lottery.checkpoints.strict_json import LONGEST, strict_json
from ks_lottery.errors import CheckpointError

_PREFIX = 8
_MOST_DIMENSIONS = 64  # of a numpy array
_LARGEST_NUMBER = 2**63 - 1
_MOST_VALUES = 2**60 - 1  # whose bytes can still be counted in 64 bits


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where a tensor lies in its file.

    Attributes:
        dtype: as torch spells it ("float32", "bfloat16", "float8_e4m3fn"), or as the file does where torch has no such
            dtype ("F4").
        shape: sizes.
        begin: first byte, counted from the start of the file.
        end: the byte after the last one.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def readable(self) -> bool:
        """Whether the dtype is one of `dtypes.ITEM_BYTES`; other tensors are listed only."""
        return self.dtype in ITEM_BYTES


def read_header(file: BinaryIO, size: int, path: str) -> tuple[dict[str, str], dict[str, TensorEntry]]:
    """Read what stands before the tensors.

    Args:
        file: opened at its start.
        size: its bytes.
        path: what to call it in messages.

    Returns:
        metadata, and tensors by name, in the order in which they lie in the file.

    Raises:
        CheckpointError: if the file is no safetensors, is truncated, or its header contradicts itself or the size.

    Cost:
        Memory of a few times the header, which has at most 100 MB and 4 million values.
    """
    prefix = file.read(_PREFIX)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < _PREFIX or length < 2 or _PREFIX + length > size:
        raise CheckpointError(
            f"{path!r} is not a whole safetensors file: it has {size} bytes, its header claims {length}. Download or "
            "save it again."
        )
    if length > LONGEST:
        raise CheckpointError(
            f"{path!r} claims a header of {length} bytes; at most {LONGEST} are read. If it is a safetensors "
            "file, save the model in shards: save_pretrained(folder, max_shard_size='5GB')."
        )
    try:
        header = strict_json(file.read(length))
        if not isinstance(header, dict):
            raise ValueError(f"it is a {type(header).__name__}, not an object")
        metadata = _metadata(header)
        described = sorted(_described(header), key=lambda item: (item[1].begin, item[1].end))
    except ValueError as error:
        raise CheckpointError(
            f"{path!r} is not a safetensors file: its header cannot be read ({error}). Only safetensors are read; save "
            "the model with save_pretrained."
        ) from error
    base = _PREFIX + length
    _require_gapless(described, size - base, path)
    placed = {
        name: TensorEntry(entry.dtype, entry.shape, base + entry.begin, base + entry.end) for name, entry in described
    }
    return metadata, placed


def _metadata(header: dict[str, Any]) -> dict[str, str]:
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its __metadata__ is no object of strings")
    return metadata


def _described(header: dict[str, Any]) -> Iterator[tuple[str, TensorEntry]]:
    """(name, entry) of every tensor; begin and end count from the end of the header."""
    for name, entry in header.items():
        fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
        dtype, shape, place = (fields.get(key) for key in ("dtype", "shape", "data_offsets"))
        if not isinstance(dtype, str) or not _sizes(shape) or not _sizes(place) or len(place) != 2:
            raise ValueError(
                f"tensor {name[:200]!r} should have a dtype, a shape and two data_offsets of whole numbers, not "
                f"{reprlib.repr(entry)}"
            )
        if len(shape) > _MOST_DIMENSIONS or math.prod(filter(None, shape)) > _MOST_VALUES:
            raise ValueError(f"tensor {name[:200]!r} has the impossible shape {str(shape)[:200]}")
        yield name, TensorEntry(TORCH_NAMES.get(dtype, dtype), tuple(shape), *place)


def _sizes(value: Any) -> TypeGuard[list[int]]:
    """Whether this is a list of integers from 0 to 2 ** 63 - 1; True and 1.0 are none."""
    return isinstance(value, list) and all(type(size) is int and 0 <= size <= _LARGEST_NUMBER for size in value)


def _require_gapless(described: list[tuple[str, TensorEntry]], data: int, path: str) -> None:
    """Check that tensors, in file order, follow each other from the first byte of the data to its last."""
    expected = 0
    for name, entry in described:
        taken = entry.end - entry.begin
        fits = not entry.readable or taken == math.prod(entry.shape) * ITEM_BYTES[entry.dtype]
        if entry.begin != expected or taken < 0 or not fits:
            raise CheckpointError(
                f"Tensor {name[:200]!r} in {path!r} has shape {str(entry.shape)[:200]} and {entry.dtype[:40]}, but the "
                f"file gives it bytes {entry.begin} to {entry.end}, where byte {expected} comes next. The file is "
                "damaged; download or save it again."
            )
        if entry.end > data:
            raise CheckpointError(
                f"Tensor {name[:200]!r} ends at byte {entry.end} of the data in {path!r}, which has only {data} bytes. "
                "The file is truncated; download or save it again."
            )
        expected = entry.end
    if expected != data:
        raise CheckpointError(
            f"{path!r} holds {data - expected} bytes behind its last tensor. The file is damaged; download or save it "
            "again."
        )
