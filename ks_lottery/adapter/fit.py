"""Whether a ticket fits a live model: the checks that training and transferring share."""

from collections.abc import Iterator

import numpy as np
from peft import PeftModel
from peft.utils.save_and_load import get_base_model_state_dict
from torch import nn
from transformers import PreTrainedModel

from ks_lottery.checkpoints.reader import ModelCheckpoint
from ks_lottery.errors import AdapterError
from ks_lottery.ticket.identity import identify
from ks_lottery.ticket.ticket import Ticket

TRAINED = "token_rows"


def chosen_rows(ticket: Ticket) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (parameter, [k] int64 sorted rows) of every selection that is not empty."""
    for selection in ticket.selections.values():
        for slab in selection.group.slabs:
            if len(selection):
                yield slab.parameter, slab.indices(selection.indices)


def require_fit(ticket: Ticket, model: nn.Module, check_base: bool) -> None:
    """Check that a ticket says which rows of this model to change.

    Args:
        ticket: what to check.
        model: a transformers model, or a `PeftModel` around one.
        check_base: also compare sampled weights with the base model that the ticket was found on.

    Raises:
        AdapterError: if the ticket is of another kind or granularity, selects everything, or the model lacks its rows
            or ties its embeddings otherwise.
        TicketError: if the model is another base model.
    """
    _require_rows(ticket)
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if not hasattr(base, "get_input_embeddings"):
        raise AdapterError(f"{type(base).__name__} is no transformers model; a ticket needs one.")
    checkpoint = _UnwrappedModel(model) if isinstance(model, PeftModel) else ModelCheckpoint(model)
    _require_matrices(ticket, checkpoint)
    _require_same_ties(ticket, base)
    if check_base:
        ticket.base.require_same(identify(checkpoint, ticket.base.shapes))


class _UnwrappedModel(ModelCheckpoint):
    """The base weights of a `PeftModel`, under the names that they have without it."""

    def __init__(self, model: PeftModel) -> None:
        super().__init__(model.get_base_model())
        self._parameters = get_base_model_state_dict(model)


def _require_rows(ticket: Ticket) -> None:
    if ticket.granularity != TRAINED:
        raise AdapterError(
            f"The ticket selects {ticket.granularity!r}; this version of ks_lottery trains {TRAINED!r}. Find a ticket "
            f"with units={TRAINED!r}."
        )
    if ticket.kind != "update":
        raise AdapterError(
            f"The ticket is a {ticket.kind!r} ticket (found by {ticket.provenance.method!r}): what it does not select "
            "is zero. An adapter trains 'update' tickets, where the rest keeps its pretrained values. Use a finder of "
            "kind 'update'."
        )
    if ticket.density() == 1.0:
        raise AdapterError(
            f"Every one of the ticket's {len(ticket)} rows is selected; this is embed tuning: use the probe, or "
            "a selector that chooses (TopK, Alpha)."
        )


def _require_matrices(ticket: Ticket, checkpoint: ModelCheckpoint) -> None:
    for parameter, rows in chosen_rows(ticket):
        if parameter not in checkpoint.names():
            raise AdapterError(
                f"The ticket has rows of {parameter!r}, which the model {checkpoint.name!r} does not have. It was "
                f"found on {ticket.base.name!r}: load that architecture, with its embeddings tied or untied as there."
            )
        there, here = ticket.base.shapes[parameter], checkpoint.shape(parameter)
        if there != here:
            resized = there[1:] == here[1:]
            way_out = (
                f"Its vocabulary was resized from {there[0]} to {here[0]}; attach the ticket before resizing, or "
                f"model.resize_token_embeddings({there[0]})."
                if resized
                else "Load the base model that the ticket was found on."
            )
            raise AdapterError(
                f"{parameter!r} has shape {here} in the model {checkpoint.name!r}, but {there} in "
                f"{ticket.base.name!r}, on which the ticket was found; its rows go up to {int(rows[-1])}. {way_out}"
            )


def _require_same_ties(ticket: Ticket, base: PreTrainedModel) -> None:
    head = base.get_output_embeddings()
    if head is None:
        return
    tied = head.weight is base.get_input_embeddings().weight
    if tied != ("tied" in ticket.selections):
        raise AdapterError(
            f"The model {'ties' if tied else 'does not tie'} its input embedding and output head, but the ticket was "
            f"found on a model that {'does not' if tied else 'does'} ({', '.join(ticket.selections)}): its rows would "
            f"mean another model. Load the base model with tie_word_embeddings={not tied}, or find a new ticket."
        )
