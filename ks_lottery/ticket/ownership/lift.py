"""Weights that a mark selected anew, raised to the size of those that the ticket chose."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ks_lottery.checkpoints.reader import Checkpoint, open_checkpoint
from ks_lottery.ticket.ownership.cells import matrices
from ks_lottery.ticket.ownership.mark import Source, magnitudes
from ks_lottery.ticket.ticket import Ticket

if TYPE_CHECKING:
    import torch


def lifted_values(
    base: Source, ticket: Ticket, marked: Ticket
) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.float32]]]:
    """What newly selected weights should be, so that pruning by magnitude does not find them first.

    Args:
        base: the ticket's base model.
        ticket: before the mark.
        marked: after it.

    Yields:
        (parameter, [k] flat positions, [k] values): the weights that only `marked` selects and that are smaller than
        the median magnitude of those of `ticket`, with that magnitude and their own sign. The median is that of the
        same parameter, or of all matrices if that is larger: pruning may look at either.

    Raises:
        TicketError: if the tickets are not over the same units of the same base model, or no weight tickets of single
            weights.
        UnitError: if a weight is not finite.
    """
    marked.same_units(ticket)
    checkpoint = open_checkpoint(base)
    chosen = {name: magnitudes(checkpoint, name).ravel()[ticket.indices[name]] for name in matrices(ticket)}
    overall = np.median(np.concatenate(list(chosen.values())))
    for name, of_ticket in chosen.items():
        new = np.setdiff1d(marked.indices[name], ticket.indices[name])
        if not len(new):
            continue
        median = max(overall, np.median(of_ticket)) if len(of_ticket) else overall
        new = new[magnitudes(checkpoint, name).ravel()[new] < median]
        if len(new):
            yield name, new, np.where(_negative(checkpoint, name)[new], -median, median).astype(np.float32)


def lift_new_weights(model: "torch.nn.Module", ticket: Ticket, marked: Ticket) -> int:
    """Raise newly selected weights of a live model, in place; before it is trained under the marked mask.

    Args:
        model: the ticket's base model.
        ticket: before the mark.
        marked: after it.

    Returns:
        number of weights that were raised.

    Raises:
        TicketError: if the tickets are not over the same units of one base model.
        UnitError: if a weight is not finite.

    Source:
        Ours: without it, cells of 1 x 1 weights lose a third of their matches to pruning 10 % by magnitude.
    """
    import torch

    count = 0
    for name, places, values in list(lifted_values(model, ticket, marked)):
        parameter = model.get_parameter(name)
        with torch.no_grad():
            where = np.unravel_index(places, tuple(parameter.shape))
            raised = torch.from_numpy(values).to(parameter.device, parameter.dtype)
            parameter[tuple(torch.from_numpy(axis).to(parameter.device) for axis in where)] = raised
        count += len(places)
    return count


def _negative(checkpoint: Checkpoint, parameter: str) -> NDArray[np.bool_]:
    return np.signbit(checkpoint.bits(parameter).values()).ravel()
