"""One safetensors file, read piece by piece through a memory map that gives its pages back."""

import json
import math
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ks_lottery.errors import CheckpointError

_DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where a tensor lies in its file; `begin` and `end` count bytes from the start of the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


class SafetensorsFile:
    """A memory-mapped safetensors file.

    Tensors are views of the map (copy-on-write: writing to one never reaches the file). `release` hands pages that
    were read back to the system, so a pass over a file of any size keeps a bounded resident set.

    Args:
        path: the file.

    Raises:
        CheckpointError: if the file is missing, truncated, not safetensors, or its header contradicts its size.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.metadata: dict[str, str] = {}
        self.entries: dict[str, TensorEntry] = {}
        if not self.path.is_file():
            raise CheckpointError(f"There is no file {str(self.path)!r}.")
        self._size = self.path.stat().st_size
        with self.path.open("rb") as file:
            self._read_header(file.read(8), file)
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Rows `start` to `stop` of a tensor's first dimension, as a view of the file; a scalar as it is."""
        entry = self.entries[name]
        if not entry.shape:
            return self._view(entry, entry.begin, 1).reshape(())
        stop = entry.shape[0] if stop is None else min(stop, entry.shape[0])
        row = math.prod(entry.shape[1:])
        view = self._view(entry, entry.begin + start * row * entry.dtype.itemsize, (stop - start) * row)
        return view.reshape(stop - start, *entry.shape[1:])

    def release(self, name: str) -> None:
        """Let the system take back the pages of a tensor; views of it stay valid and are read again when touched."""
        entry = self.entries[name]
        first = entry.begin - entry.begin % mmap.PAGESIZE
        if hasattr(self._map, "madvise") and entry.end > first:
            self._map.madvise(mmap.MADV_DONTNEED, first, entry.end - first)

    def _view(self, entry: TensorEntry, offset: int, count: int) -> torch.Tensor:
        if count == 0:
            return torch.empty(0, dtype=entry.dtype)
        return torch.frombuffer(self._map, dtype=entry.dtype, count=count, offset=offset)

    def _read_header(self, prefix: bytes, file: BinaryIO) -> None:
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length < 2 or 8 + length > self._size:
            raise CheckpointError(
                f"{str(self.path)!r} is not a whole safetensors file: it has {self._size} bytes, its header claims "
                f"{length}. Download or save it again."
            )
        try:
            header = json.loads(file.read(length))
            self.metadata = dict(header.pop("__metadata__", None) or {})
            entries = dict(self._entries_of(header, 8 + length))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{str(self.path)!r} is not a safetensors file: its header cannot be read ({error}). "
                "Only safetensors are read; save the model with save_pretrained."
            ) from error
        self.entries = entries

    def _entries_of(self, header: dict[str, dict[str, Any]], base: int) -> Iterator[tuple[str, TensorEntry]]:
        expected = 0
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"][0]):
            begin, end = (int(offset) for offset in entry["data_offsets"])
            shape = tuple(int(size) for size in entry["shape"])
            dtype = _DTYPES.get(str(entry["dtype"]))
            if dtype is None:
                expected = end
                continue
            if min((*shape, 0)) < 0 or end - begin != math.prod(shape) * dtype.itemsize or begin != expected:
                raise CheckpointError(
                    f"Tensor {name!r} in {str(self.path)!r} has shape {shape} and {entry['dtype']}, but the file gives "
                    f"it bytes {begin} to {end}. The file is damaged; download or save it again."
                )
            if base + end > self._size:
                raise CheckpointError(
                    f"Tensor {name!r} ends at byte {base + end} of {str(self.path)!r}, which has only {self._size} "
                    "bytes. The file is truncated; download or save it again."
                )
            expected = end
            yield name, TensorEntry(dtype, shape, base + begin, base + end)
