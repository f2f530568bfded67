"""Partial transfer: the rows of a ticket, copied from the end of a probe; nothing is trained."""

import os
from typing import TypeVar

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn

from ks_lottery.adapter.fit import chosen_rows, require_fit
from ks_lottery.checkpoints.reader import Checkpoint, is_tied, open_checkpoint
from ks_lottery.errors import AdapterError
from ks_lottery.ticket.ticket import Ticket

ModelT = TypeVar("ModelT", bound=nn.Module)


def transfer_ticket(
    model: ModelT, ticket: Ticket, after: "str | os.PathLike[str] | nn.Module | Checkpoint", *, check_base: bool = True
) -> ModelT:
    """Copy a ticket's rows from `after` into a model, in place.

    Args:
        model: the pretrained model.
        ticket: an update ticket of token rows.
        after: the weights at the end of the probe: a model, folder, Hub id or checkpoint. Only the ticket's rows of it
            are read; they are rounded to the model's dtype.
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
    for parameter, _ in chosen_rows(ticket):
        _require_rows_of(source, parameter, ticket)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for parameter, rows in chosen_rows(ticket):
            weight = parameters[parameter]
            values = read_rows(source, parameter, rows).to(weight)
            weight.index_copy_(0, torch.from_numpy(rows).to(weight.device), values)
    return model


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


def _require_rows_of(after: Checkpoint, parameter: str, ticket: Ticket) -> None:
    if is_tied(after.config) != ("tied" in ticket.selections):
        state = "ties" if is_tied(after.config) else "does not tie"
        raise AdapterError(
            f"after = {after.name!r} {state} its embeddings, unlike the model that the ticket was found on. Transfer "
            "from the probe that started from the ticket's base model."
        )
    if parameter not in after.names():
        raise AdapterError(f"after = {after.name!r} has no {parameter!r}. Transfer from the ticket's own probe.")
    here, there = after.shape(parameter), ticket.base.shapes[parameter]
    if here != there:
        raise AdapterError(
            f"{parameter!r} has shape {here} in after = {after.name!r}, but {there} in {ticket.base.name!r}, on which "
            "the ticket was found. Transfer from the ticket's own probe, saved before any resizing."
        )
