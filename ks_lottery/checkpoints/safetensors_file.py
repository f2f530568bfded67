"""One safetensors file, read piece by piece through a memory map that gives its pages back."""

import math
import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ks_lottery.checkpoints.dtypes import ITEM_BYTES, float_format
from ks_lottery.checkpoints.safetensors_header import read_header
from ks_lottery.errors import CheckpointError
from ks_lottery.stats.floats import FloatBits

if TYPE_CHECKING:
    import torch


class SafetensorsFile:
    """A memory-mapped safetensors file.

    The map is read-only, so a file may be larger than the memory. `release` hands pages that were read back to the
    system, so a pass over a file of any size keeps a bounded resident set.

    Args:
        path: the file.

    Attributes:
        metadata: what stands in the header beside the tensors.
        entries: tensors by name, in the order of the file.

    Raises:
        CheckpointError: if the file is missing, truncated, not safetensors, or its header contradicts its size.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not os.path.isfile(self.path):  # which is false, not an error, for a name that is too long
            raise CheckpointError(f"There is no file {str(self.path)!r}.")
        with self.path.open("rb") as file:
            self._size = os.fstat(file.fileno()).st_size
            self.metadata, self.entries = read_header(file, self._size, str(self.path))
            self._map = mmap.mmap(file.fileno(), self._size, access=mmap.ACCESS_READ)

    def bits(self, name: str, start: int = 0, stop: int | None = None) -> FloatBits:
        """Rows of a tensor as bits.

        Args:
            name: tensor of a dtype in `stats.floats.FORMATS`.
            start: first row, as in a slice.
            stop: the row after the last one, as in a slice.

        Returns:
            [rows, ...], a read-only view of the file; a scalar as it is.

        Raises:
            CheckpointError: if the dtype is another one.
        """
        dtype = self.entries[name].dtype
        integer = float_format(dtype, name, str(self.path)).integer
        content, shape = self._bytes(name, start, stop)
        return FloatBits(np.require(content.view(integer), requirements="A").reshape(shape), dtype)

    def array(self, name: str) -> NDArray[Any]:
        """A tensor as a numpy array of its own.

        Raises:
            CheckpointError: if numpy has no such dtype.
        """
        dtype = self.entries[name].dtype
        content, shape = self._bytes(name)
        if dtype.startswith(("bfloat", "float8")):
            raise CheckpointError(
                f"{name[:200]!r} in {str(self.path)!r} is {dtype}, which numpy lacks. Read it with bits or rows."
            )
        return content.copy().view(dtype).reshape(shape)

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> "torch.Tensor":
        """Rows of a tensor, as a copy on the CPU; arguments as `bits`, any dtype that torch has.

        Raises:
            CheckpointError: if torch has no such dtype.
        """
        import torch

        content, shape = self._bytes(name, start, stop)
        dtype = getattr(torch, self.entries[name].dtype, None)
        if dtype is None:
            raise self._unreadable(name)
        rows = torch.empty(math.prod(shape), dtype=dtype)
        rows.view(torch.uint8).numpy()[:] = content
        return rows.reshape(shape)

    def release(self, name: str) -> None:
        """Let the system take back the pages of a tensor; views of it stay valid and are read again when touched."""
        entry = self.entries[name]
        first = entry.begin - entry.begin % mmap.PAGESIZE
        if hasattr(self._map, "madvise") and entry.end > first:
            self._map.madvise(mmap.MADV_DONTNEED, first, entry.end - first)

    def _bytes(self, name: str, start: int = 0, stop: int | None = None) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
        """Flat view of the bytes of some rows, and the shape that they make."""
        entry = self.entries[name]
        if not entry.readable:
            raise self._unreadable(name)
        if self._map.size() < self._size:
            raise CheckpointError(
                f"{str(self.path)!r} shrank from {self._size} to {self._map.size()} bytes since it was opened. Wait "
                "until it is written, then open it again."
            )
        if not entry.shape:
            return np.frombuffer(self._map, np.uint8, entry.end - entry.begin, entry.begin), ()
        first, last, _ = slice(start, stop).indices(entry.shape[0])
        count = max(0, last - first)
        row = (entry.end - entry.begin) // max(1, entry.shape[0])
        return np.frombuffer(self._map, np.uint8, count * row, entry.begin + first * row), (count, *entry.shape[1:])

    def _unreadable(self, name: str) -> CheckpointError:
        return CheckpointError(
            f"{name[:200]!r} in {str(self.path)!r} is {self.entries[name].dtype[:40]}, which is not read here; that "
            f"works for {', '.join(ITEM_BYTES)}. Load the model in one of these dtypes and save it again."
        )
