"""Two checkpoints read side by side, piece by piece: the next pieces are on their way while others are compared."""

import mmap
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ks_lottery.checkpoints.checkpoint import Checkpoint
from ks_lottery.checkpoints.inventory import TensorPair
from ks_lottery.checkpoints.place import Place, place_of
from ks_lottery.errors import CheckpointError

Bytes = NDArray[np.uint8]
Task = TypeVar("Task")
Result = TypeVar("Result")

PIECE_BYTES = 8 * 2**20  # of one side: large enough for a disk and for Python, small beside the memory
PIECES_AHEAD = 8  # handed to the threads before they are needed
ANNOUNCED_AHEAD = 32  # asked of the disk before they are handed out, which keeps it busy while kernels are loaded
_SPLIT_ROW_BYTES = PIECE_BYTES  # a longer row is cut into parts of this length, whatever the size of a piece


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of bytes of one tensor pair: whole rows, or a part of one row.

    Attributes:
        pair: the tensor.
        begin: first byte, counted from the start of the tensor.
        end: the byte after the last one.
    """

    pair: TensorPair
    begin: int
    end: int

    @property
    def first_row(self) -> int:
        """Number of the row that the first byte is in."""
        return self.begin // self.pair.row_bytes

    @property
    def whole_rows(self) -> bool:
        """Whether this is no part of a row."""
        return self.end - self.begin >= self.pair.row_bytes

    @property
    def name(self) -> str:
        """The tensor's name; for a part of a row with the places of its values."""
        if self.whole_rows:
            return self.pair.name
        start, stop = (
            (byte - self.first_row * self.pair.row_bytes) // self.pair.itemsize for byte in (self.begin, self.end)
        )
        return f"{self.pair.name}[{start}:{stop}]"


def pieces_of(pair: TensorPair, *, cut_rows: bool = True, piece_bytes: int = PIECE_BYTES) -> list[Piece]:
    """Cut a tensor into pieces, in file order.

    Args:
        pair: the tensor; an empty one has no pieces.
        cut_rows: whether rows of more than 4 MiB are read in parts.
        piece_bytes: bound of a piece of several rows; every piece has one row, or one part of one, at least.
    """
    if pair.num_bytes == 0:
        return []
    if cut_rows and pair.row_bytes > _SPLIT_ROW_BYTES:
        bounds = [
            (begin, min(begin + _SPLIT_ROW_BYTES, row + pair.row_bytes))
            for row in range(0, pair.num_bytes, pair.row_bytes)
            for begin in range(row, row + pair.row_bytes, _SPLIT_ROW_BYTES)
        ]
    else:
        step = max(1, piece_bytes // pair.row_bytes) * pair.row_bytes
        bounds = [(begin, min(begin + step, pair.num_bytes)) for begin in range(0, pair.num_bytes, step)]
    return [Piece(pair, begin, end) for begin, end in bounds]


class PairReader:
    """Reads pieces of two checkpoints; any number of threads may read at once.

    Files are seen through windows that last as long as the arrays that look through them, so that the resident set is
    that of the pieces in hand, whatever the size of the files.

    Args:
        before: one checkpoint.
        after: the other one.
    """

    def __init__(self, before: Checkpoint, after: Checkpoint) -> None:
        self._sides = (before, after)
        self._files: dict[Path, int] = {}
        self._places: dict[str, tuple[Place | None, Place | None]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._files:
            os.close(self._files.popitem()[1])

    def announce(self, piece: Piece) -> None:
        """Open the files that a piece lies in, and let the system fetch it; one thread, before the piece is read.

        Raises:
            CheckpointError: if a file cannot be opened.
        """
        if piece.pair.name not in self._places:
            before, after = self._sides
            self._places[piece.pair.name] = place_of(before, piece.pair.name), place_of(after, piece.pair.name)
        for place in self._places[piece.pair.name]:
            if place is None:
                continue
            if place.path not in self._files:
                self._files[place.path] = _open(place.path)
            if hasattr(os, "posix_fadvise"):
                begin, size = place.begin + piece.begin, piece.end - piece.begin
                os.posix_fadvise(self._files[place.path], begin, size, os.POSIX_FADV_WILLNEED)

    def announced(self, pieces: Iterable[Piece], ahead: int = ANNOUNCED_AHEAD) -> Iterator[Piece]:
        """Pass pieces on in their order; each one is announced long before it is passed on. Errors as `announce`."""
        waiting: deque[Piece] = deque()
        for piece in pieces:
            self.announce(piece)
            waiting.append(piece)
            if len(waiting) > ahead:
                yield waiting.popleft()
        yield from waiting

    def read(self, piece: Piece) -> tuple[Bytes, Bytes]:
        """The bytes of an announced piece before and after: [bytes] uint8 each, to be read only.

        Raises:
            CheckpointError: if a file has become shorter since it was opened.
        """
        before, after = (self._side(side, piece) for side in (0, 1))
        return before, after

    def _side(self, side: int, piece: Piece) -> Bytes:
        place = self._places[piece.pair.name][side]
        if place is None:
            return _live_bytes(self._sides[side], piece)
        begin, size = place.begin + piece.begin, piece.end - piece.begin
        ahead = begin % mmap.ALLOCATIONGRANULARITY
        try:
            window = mmap.mmap(self._files[place.path], ahead + size, access=mmap.ACCESS_READ, offset=begin - ahead)
        except ValueError as error:
            raise CheckpointError(
                f"{str(place.path)!r} became shorter while it was read. Wait until it is written, then compare again."
            ) from error
        return np.frombuffer(window, np.uint8, size, ahead)


def in_order(
    work: Callable[[Task], Result], tasks: Iterable[Task], jobs: int, ahead: int = PIECES_AHEAD
) -> Generator[Result, None, None]:
    """Work on tasks in threads; results come in the order of the tasks.

    Whatever ends the iteration (an error of the work, Ctrl-C, a caller that stops early) ends the threads as soon as
    each has finished the task in its hands.

    Args:
        work: called in the threads; should spend its time outside the interpreter lock.
        tasks: taken by the calling thread, at most `ahead` before their results are asked for.
        jobs: number of threads.
        ahead: tasks in hand at once.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(jobs, thread_name_prefix="ks_lottery") as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(work, task))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise CheckpointError(f"{str(path)!r} cannot be opened: {error.strerror}.") from error


def _live_bytes(checkpoint: Checkpoint, piece: Piece) -> Bytes:
    """A piece of a model in memory; from an accelerator it is copied."""
    import torch

    pair = piece.pair
    slice_bytes = pair.num_bytes // pair.shape[0] if pair.shape else pair.num_bytes
    start, stop = piece.begin // slice_bytes, -(-piece.end // slice_bytes)
    rows = checkpoint.rows(pair.name, start, stop).detach().cpu().reshape(-1).view(torch.uint8).numpy()
    content: Bytes = rows[piece.begin - start * slice_bytes : piece.end - start * slice_bytes]
    return content
