"""V2: an owner's credential in the mask of a weight ticket."""

import os
import secrets
from typing import TYPE_CHECKING, Union

import numpy as np
from numpy.typing import NDArray

from ks_lottery.checkpoints.reader import Checkpoint, open_checkpoint
from ks_lottery.errors import TicketError, UnitError
from ks_lottery.ticket.identity import identify
from ks_lottery.ticket.ownership.cells import best_places, mask_of, matrices, require_block
from ks_lottery.ticket.ownership.credential import size_for, written_cells
from ks_lottery.ticket.ownership.mark_key import MarkKey, keyed_pattern
from ks_lottery.ticket.ticket import Provenance, Ticket

if TYPE_CHECKING:
    import torch

Source = Union[str, os.PathLike[str], "torch.nn.Module", Checkpoint]
Mask = NDArray[np.bool_]
Sizes = NDArray[np.float32]


def embed_mark(
    ticket: Ticket, base: Source, text: str, *, block: int = 3, size: int | None = None, secret: bytes | None = None
) -> tuple[Ticket, MarkKey]:
    """Write a credential into the mask, at the place that already resembles it most. Before the ticket is trained.

    A cell of `block` x `block` weights is 1 if it holds a selected weight. Where the pattern has 0, all of the cell's
    weights are dropped; where it has 1 and the cell is empty, its largest weight is selected. Then the number of
    selected weights of the matrix is restored exactly: weights are added to the cells of 1, always to those that have
    fewest, and outside the pattern if those are full; or the smallest weights outside the pattern are dropped.

    Weights that are selected anew are smaller than those that the ticket chose, and with cells of one weight pruning by
    magnitude finds them first: `lift_new_weights` raises them before training, or use blocks.

    Args:
        ticket: of kind "weight" over single weights.
        base: the ticket's base model, for magnitudes: live model, folder, Hub id or checkpoint.
        text: the credential, at most 142 bytes of UTF-8.
        block: weights along a side of a cell, 1 to 8.
        size: cells along a side of the pattern; the smallest that carries the text if None. The more cells, the
            smaller the p-value of a claim.
        secret: 32 bytes; drawn if None.

    Returns:
        the marked ticket, with as many weights in each matrix as before, and the key that finds the mark.

    Raises:
        OptionError: if the text is empty or too long, or `block`, `size` or `secret` cannot be so.
        TicketError: if the ticket is of another kind or base model, or no matrix has room for the pattern.
        UnitError: if a weight of a matrix is not finite.

    Cost:
        A Fourier transform of each matrix's cells, and three copies of the marked matrix.

    Source:
        Chen et al. 2021 (NeurIPS), "You are caught stealing my winning lottery ticket!", scheme V2, algorithm 2; blocks
        in place of convolution kernels.
    """
    require_block(block)
    size = size_for(text) if size is None else size
    secret = secrets.token_bytes(32) if secret is None else secret
    pattern, written = keyed_pattern(text, secret, size), written_cells(size)
    checkpoint = open_checkpoint(base)
    _require_room(ticket, size, block)
    ticket.base.require_same(identify(checkpoint, ticket.base.shapes))
    for _, name, row, column in sorted(best_places(ticket, pattern, written, block), key=lambda place: -place[0]):
        mask = mask_of(ticket, name)
        if _written(mask, magnitudes(checkpoint, name), pattern, written, (row, column), block):
            indices = {**ticket.indices, name: np.flatnonzero(mask)}
            return ticket.with_units(indices, _provenance(ticket)), MarkKey(
                text, secret, name, row, column, block, size
            )
    raise TicketError(
        f"A pattern of {size} x {size} cells of {block} x {block} weights fits into no matrix with its number of "
        f"selected weights unchanged: at a density of {ticket.density():.3g} too few can be added or dropped outside "
        "the pattern. Shorten the credential, or choose another block."
    )


def magnitudes(checkpoint: Checkpoint, parameter: str) -> Sizes:
    """[rows, columns] float32: the absolute weights of a matrix.

    Raises:
        UnitError: if one is NaN or infinite.
    """
    values = np.abs(checkpoint.bits(parameter).values().astype(np.float32))
    finite = np.isfinite(values)
    if not finite.all():
        place = np.unravel_index(int(np.argmin(finite)), values.shape)
        raise UnitError(
            f"{parameter!r} of {checkpoint.name!r} holds {values[place]} at {tuple(map(int, place))}. Give a model "
            "with finite weights."
        )
    return values


def _require_room(ticket: Ticket, size: int, block: int) -> None:
    shapes = matrices(ticket)
    if not any(min(shape) // block >= size for shape in shapes.values()):
        side = size * block
        largest = max(shapes.items(), key=lambda entry: min(entry[1]), default=None)
        has = f"the roomiest, {largest[0]!r}, has {largest[1][0]} x {largest[1][1]}" if largest else "it has none"
        raise TicketError(
            f"The credential is too long for the mask: {size} x {size} cells of {block} x {block} weights need a "
            f"matrix of {side} x {side} weights, and {has}. Shorten it, or choose a smaller block."
        )


def _written(mask: Mask, sizes: Sizes, pattern: Mask, written: Mask, place: tuple[int, int], block: int) -> bool:
    """Write a pattern into a mask, in place, and restore its number of weights; False if that is impossible."""
    side = len(pattern) * block
    (row, column), before = (place[0] * block, place[1] * block), int(mask.sum())
    where = np.s_[row : row + side, column : column + side]
    kept, cell_sizes = _cells(mask[where], block), _cells(sizes[where], block)
    ones = written & pattern
    kept[written & ~pattern] = False
    empty = ones & ~kept.any(axis=2)
    kept[empty, cell_sizes.argmax(axis=2)[empty]] = True
    outside = np.ones(mask.shape, dtype=bool)
    outside[where] = False
    surplus = before - int(mask[outside].sum()) - int(kept.sum())
    surplus -= _fill(kept, cell_sizes, ones, surplus)
    mask[where] = kept.reshape(*pattern.shape, block, block).swapaxes(1, 2).reshape(side, side)
    movable = np.flatnonzero(outside & (mask if surplus < 0 else ~mask))
    if len(movable) < abs(surplus):
        return False
    order = np.argsort((1 if surplus < 0 else -1) * sizes.ravel()[movable], kind="stable")
    mask.ravel()[movable[order[: abs(surplus)]]] = surplus > 0
    return True


def _fill(kept: Mask, sizes: Sizes, ones: Mask, count: int) -> int:
    """Select more weights in the cells of 1, the emptiest first and in each the largest; returns how many.

    Args:
        kept: [n, n, weights of a cell] bool, changed in place.
        sizes: as `kept`, magnitudes.
        ones: [n, n] bool.
        count: at most so many; nothing happens below 1.
    """
    free = ~kept & ones[:, :, None]
    order = np.argsort(np.where(free, -sizes, np.inf), axis=2, kind="stable")
    level = kept.sum(axis=2)[:, :, None] + np.argsort(order, axis=2, kind="stable")
    places = np.flatnonzero(free)
    chosen = places[np.lexsort((-sizes.ravel()[places], level.ravel()[places]))[: max(0, count)]]
    kept.reshape(-1)[chosen] = True
    return len(chosen)


def _cells(region: NDArray, block: int) -> NDArray:
    """[n * block, n * block] as a copy of shape [n, n, block * block]."""
    count = len(region) // block
    return region.reshape(count, block, count, block).swapaxes(1, 2).reshape(count, count, block * block).copy()


def _provenance(ticket: Ticket) -> Provenance:
    """Says that the ticket is marked, and nothing of how or where."""
    return Provenance(
        "marked", {**ticket.provenance.details, "method": ticket.provenance.method, "of": ticket.fingerprint}
    )
