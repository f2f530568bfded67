"""Partial transfer: the weights of a ticket, copied from the end of a probe; nothing is trained."""

import math
import os
from typing import TypeVar

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn

from ks_lottery.adapter.fit import TOKEN_GROUPS, ChosenPart, chosen_parts, require_fit
from ks_lottery.adapter.parts import read_part, write_part
from ks_lottery.checkpoints.reader import Checkpoint, open_checkpoint
from ks_lottery.errors import AdapterError
from ks_lottery.ticket.ticket import Ticket
from ks_lottery.units.layout import task_head

_PIECE_VALUES = 2**22

ModelT = TypeVar("ModelT", bound=nn.Module)


def transfer_ticket(
    model: ModelT, ticket: Ticket, after: "str | os.PathLike[str] | nn.Module | Checkpoint", *, check_base: bool = True
) -> ModelT:
    """Copy a ticket's weights from `after` into a model, in place.

    Args:
        model: the pretrained model.
        ticket: an update ticket.
        after: the weights at the end of the probe: a model, folder, Hub id or checkpoint. Only the ticket's rows of it
            are read, and the matrices of which it has other parts, in pieces; values are rounded to the model's dtype.
        check_base: compare sampled weights of `model` with the base model that the ticket was found on.

    Returns:
        `model`, with no adapter.

    Raises:
        AdapterError: if the ticket does not fit the model or `after`.
        TicketError: if the model is another base model than the ticket's.

    Source:
        Yuan et al. 2025 (KS-Lottery), partial transfer.
    """
    if isinstance(model, PeftModel):
        raise AdapterError(
            "transfer_ticket writes into a plain model, but this one has an adapter. Give the base model: "
            "model.unload(), or model.merge_and_unload() to keep what the adapter learnt."
        )
    require_fit(ticket, model, check_base)
    source = open_checkpoint(after)
    parts = chosen_parts(ticket)
    require_after(source, ticket)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for part in parts:
            values = read_chosen(source, part)
            write_part(parameters[part.parameter], part.dim, torch.from_numpy(part.index), values)
    return model


def require_after(after: Checkpoint, ticket: Ticket) -> None:
    """Check that a checkpoint has the weights that a ticket chooses.

    Raises:
        AdapterError: if it ties its embeddings otherwise than the ticket's base model, lacks a parameter, or has it
            in another shape.
    """
    _require_same_ends(after, ticket)
    for parameter in dict.fromkeys(part.parameter for part in chosen_parts(ticket)):
        _require_same(after, parameter, ticket)


def read_chosen(checkpoint: Checkpoint, part: ChosenPart) -> Tensor:
    """Read what a ticket chooses of a parameter.

    Returns:
        [k, ...] copy, in the dtype of the checkpoint: slices lie along the first dimension; [k] for single values.

    Cost:
        The result, and one piece of the parameter at a time.
    """
    if part.dim == 0:
        return read_rows(checkpoint, part.parameter, part.index)
    pieces = []
    shape = checkpoint.shape(part.parameter)
    width = math.prod(shape[1:])
    step = max(1, _PIECE_VALUES // width)
    for start in range(0, shape[0], step):
        rows = checkpoint.rows(part.parameter, start, min(start + step, shape[0]))
        if part.dim == 1:
            pieces.append(read_part(rows, 1, torch.from_numpy(part.index)))
        else:
            first, last = np.searchsorted(part.index, (start * width, (start + len(rows)) * width))
            pieces.append(read_part(rows, None, torch.from_numpy(part.index[first:last] - start * width)))
        checkpoint.release(part.parameter)
    return torch.cat(pieces, dim=1 if part.dim == 1 else 0)


def read_rows(checkpoint: Checkpoint, parameter: str, rows: np.ndarray) -> Tensor:
    """Read some rows of a parameter.

    Args:
        checkpoint: where from.
        parameter: a matrix.
        rows: [k] int64, sorted and unique.

    Returns:
        [k, d] copy, in the dtype of the checkpoint.
    """
    runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    values = torch.cat([checkpoint.rows(parameter, int(run[0]), int(run[-1]) + 1) for run in runs])
    checkpoint.release(parameter)
    return values


def _require_same_ends(after: Checkpoint, ticket: Ticket) -> None:
    if not TOKEN_GROUPS & set(ticket.selections):
        return
    tied = after.tied and task_head(after.names()) is None
    if tied != ("tied" in ticket.selections):
        state = "ties" if tied else "does not tie"
        raise AdapterError(
            f"after = {after.name!r} {state} its embeddings, unlike the model that the ticket was found on. Transfer "
            "from the probe that started from the ticket's base model."
        )


def _require_same(after: Checkpoint, parameter: str, ticket: Ticket) -> None:
    if parameter not in after.names():
        raise AdapterError(f"after = {after.name!r} has no {parameter!r}. Transfer from the ticket's own probe.")
    here, there = after.shape(parameter), ticket.base.shapes[parameter]
    if here != there:
        raise AdapterError(
            f"{parameter!r} has shape {here} in after = {after.name!r}, but {there} in {ticket.base.name!r}, on which "
            "the ticket was found. Transfer from the ticket's own probe, saved before any resizing."
        )
