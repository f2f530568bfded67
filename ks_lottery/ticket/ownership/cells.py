"""The mask of a matrix as cells of b x b weights, and where in it a pattern of cells fits."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ks_lottery.errors import OptionError, TicketError
from ks_lottery.ticket.ownership.credential import SIZES
from ks_lottery.ticket.ticket import Ticket

BLOCKS = tuple(range(1, 9))
"""Weights along a side of a cell."""

Shape = tuple[int, int]


def require_block(block: int) -> None:
    """Check the number of weights along a side of a cell.

    Raises:
        OptionError: if it is not one of `BLOCKS`.
    """
    if block not in BLOCKS:
        raise OptionError(f"block={block}: a cell has from {BLOCKS[0]} to {BLOCKS[-1]} weights along a side.")


def matrices(ticket: Ticket) -> dict[str, Shape]:
    """The ticket's parameters of two dimensions, by name, in the order of its groups.

    Raises:
        TicketError: if it is no weight ticket of single weights.
    """
    if ticket.kind != "weight" or ticket.granularity != "weights":
        raise TicketError(
            f"Only the mask of a weight ticket of single weights can carry a mark or be locked; this is one of kind "
            f"{ticket.kind!r} over {ticket.granularity!r}. Sign its file instead: ks-lottery sign TICKET --key FILE."
        )
    shapes = {name: ticket.base.shapes[name] for name in ticket.selections}
    return {name: (shape[0], shape[1]) for name, shape in shapes.items() if len(shape) == 2}


def mask_of(ticket: Ticket, parameter: str) -> NDArray[np.bool_]:
    """[rows, columns] bool: which weights of a matrix the ticket selects."""
    rows, columns = matrices(ticket)[parameter]
    mask = np.zeros(rows * columns, dtype=bool)
    mask[ticket.indices[parameter]] = True
    return mask.reshape(rows, columns)


def occupied(mask: NDArray[np.bool_], block: int) -> NDArray[np.bool_]:
    """Which cells hold a selected weight.

    Args:
        mask: [rows, columns] bool.
        block: weights along a side of a cell; rows and columns that fill no whole cell are left out.

    Returns:
        [rows // block, columns // block] bool.
    """
    rows, columns = mask.shape[0] // block, mask.shape[1] // block
    blocks = mask[: rows * block, : columns * block].reshape(rows, block, columns, block)
    return np.asarray(blocks.any(axis=(1, 3)))


def matching(cells: NDArray[np.bool_], pattern: NDArray[np.bool_], written: NDArray[np.bool_]) -> NDArray[np.int64]:
    """At every place, how many written cells of a pattern are as the mask has them.

    Args:
        cells: [rows, columns] bool.
        pattern: [n, n] bool, n at most rows and columns.
        written: [n, n] bool; other cells of the pattern do not count.

    Returns:
        [rows - n + 1, columns - n + 1] counts.

    Cost:
        O(rows * columns * log) by Fourier transform.
    """
    from scipy.signal import correlate

    signs = np.where(written, np.where(pattern, 1.0, -1.0), 0.0)
    agreement = correlate(np.where(cells, 1.0, -1.0), signs, mode="valid", method="fft")
    return (np.rint(agreement).astype(np.int64) + int(written.sum())) // 2


def places(shapes: Iterable[Shape], block: int, size: int) -> int:
    """At how many places of some matrices a pattern of this size fits."""
    return sum(max(0, rows // block - size + 1) * max(0, columns // block - size + 1) for rows, columns in shapes)


def all_places(shapes: Sequence[Shape]) -> int:
    """At how many places a claim could point: with every size of pattern and of cells."""
    return sum(places(shapes, block, size) for block in BLOCKS for size in SIZES)


def best_places(
    ticket: Ticket, pattern: NDArray[np.bool_], written: NDArray[np.bool_], block: int
) -> Iterator[tuple[float, str, int, int]]:
    """The place of each large enough matrix at which the mask is most like the pattern.

    Args:
        ticket: a weight ticket of single weights.
        pattern: [n, n] bool.
        written: [n, n] bool: cells that count.
        block: weights along a side of a cell.

    Yields:
        (share of matching cells, parameter, row, column), in cells; of equal places the first.
    """
    size = len(pattern)
    for name, shape in matrices(ticket).items():
        if min(shape) // block < size:
            continue
        found = matching(occupied(mask_of(ticket, name), block), pattern, written)
        row, column = np.unravel_index(int(found.argmax()), found.shape)
        yield float(found[row, column]) / float(written.sum()), name, int(row), int(column)
