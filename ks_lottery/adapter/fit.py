"""Whether a ticket fits a live model: the checks that training and transferring share."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from peft import PeftModel
from peft.utils.save_and_load import get_base_model_state_dict
from torch import nn
from transformers import PreTrainedModel

from ks_lottery.adapter.overlap import outside
from ks_lottery.checkpoints.reader import ModelCheckpoint
from ks_lottery.errors import AdapterError
from ks_lottery.ticket.identity import identify
from ks_lottery.ticket.ticket import Ticket
from ks_lottery.units.slab import Slab

TOKEN_GROUPS = {"input", "output", "tied"}
"""Names of unit groups of token rows: `tied` where the model ties its embeddings, the others where it does not."""

_NOUNS = {0: "rows", 1: "columns", None: "single weights"}


@dataclass(frozen=True, slots=True)
class ChosenPart:
    """What a ticket chooses along one dimension of one parameter.

    Attributes:
        parameter: its name.
        dim: 0 for rows, 1 for columns, None for single values (of vectors always).
        index: [k] int64; sorted and unique positions along `dim`, or in the flattened parameter.
    """

    parameter: str
    dim: int | None
    index: np.ndarray


def chosen_parts(ticket: Ticket) -> list[ChosenPart]:
    """What a ticket chooses, with every weight in one part, however many units or slabs own it.

    A weight in a chosen row belongs to the row; a column is a part as well, but where it crosses chosen rows it is
    theirs; single weights in neither are left.
    """
    found: dict[str, dict[int | None, list[np.ndarray]]] = {}
    for selection in ticket.selections.values():
        for slab in selection.group.slabs:
            if len(selection):
                vector = len(ticket.base.shapes[slab.parameter]) == 1
                dims = found.setdefault(slab.parameter, {})
                dims.setdefault(None if vector else slab.dim, []).append(slab.indices(selection.indices))
    parts: list[ChosenPart] = []
    for parameter, dims in found.items():
        merged = {dim: np.unique(np.concatenate(pieces)) for dim, pieces in dims.items()}
        parts += _apart(parameter, merged, ticket.base.shapes[parameter])
    return parts


def chosen_rows(ticket: Ticket) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (parameter, [k] int64 sorted rows) of a ticket of token rows, for every selection that is not empty."""
    for part in chosen_parts(ticket):
        assert part.dim == 0
        yield part.parameter, part.index


def _apart(parameter: str, dims: Mapping[int | None, np.ndarray], shape: tuple[int, ...]) -> Iterator[ChosenPart]:
    none = np.zeros(0, dtype=np.int64)
    rows, columns, entries = (dims.get(dim, none) for dim in (0, 1, None))
    if len(shape) == 2 and len(entries) == shape[0] * shape[1]:
        rows = np.arange(shape[0])
    if len(rows) == shape[0]:
        columns = none
    if len(rows) or len(columns):
        entries = entries[outside(entries, rows, columns, shape[-1])]
    for dim, index in ((0, rows), (1, columns), (None, entries)):
        if len(index):
            yield ChosenPart(parameter, dim, index)


def require_fit(ticket: Ticket, model: nn.Module, check_base: bool) -> None:
    """Check that a ticket says which weights of this model to change.

    Args:
        ticket: what to check.
        model: a transformers model, or a `PeftModel` around one.
        check_base: also compare sampled weights with the base model that the ticket was found on.

    Raises:
        AdapterError: if the ticket is of another kind, selects every token row, or the model lacks its parameters or
            ties its embeddings otherwise.
        TicketError: if the model is another base model.
    """
    require_update(ticket)
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if not hasattr(base, "get_input_embeddings"):
        raise AdapterError(f"{type(base).__name__} is no transformers model; a ticket needs one.")
    checkpoint = _UnwrappedModel(model) if isinstance(model, PeftModel) else ModelCheckpoint(model)
    _require_parameters(ticket, checkpoint)
    _require_same_ties(ticket, base)
    if check_base:
        ticket.base.require_same(identify(checkpoint, ticket.base.shapes))


class _UnwrappedModel(ModelCheckpoint):
    """The base weights of a `PeftModel`, under the names that they have without it."""

    def __init__(self, model: PeftModel) -> None:
        super().__init__(model.get_base_model())
        self._parameters = get_base_model_state_dict(model)


def require_update(ticket: Ticket) -> None:
    """Check that what a ticket does not select keeps its pretrained value, and that it selects some and not all rows.

    Raises:
        AdapterError: if it is a weight ticket, or selects every token row.
    """
    if ticket.kind != "update":
        raise AdapterError(
            f"The ticket is a {ticket.kind!r} ticket (found by {ticket.provenance.method!r}): what it does not select "
            "is zero. An adapter trains 'update' tickets, where the rest keeps its pretrained values. Use a finder of "
            "kind 'update'."
        )
    if ticket.granularity == "token_rows" and ticket.density() == 1.0:
        raise AdapterError(
            f"Every one of the ticket's {len(ticket)} rows is selected; this is embed tuning: use the probe, or "
            "a selector that chooses (TopK, Alpha)."
        )


def _require_parameters(ticket: Ticket, checkpoint: ModelCheckpoint) -> None:
    for selection in ticket.selections.values():
        for slab in selection.group.slabs:
            if len(selection):
                index = slab.indices(selection.indices)
                _require_same_shape(slab, int(index.max()), ticket, checkpoint)
    require_slabs(ticket)


def require_slabs(ticket: Ticket) -> None:
    """Check that what a ticket selects are rows, columns or single values of vectors and matrices.

    Raises:
        AdapterError: if it selects parts of fused experts, or its groups do not describe the parameters.
    """
    for selection in ticket.selections.values():
        for slab in selection.group.slabs:
            if len(selection):
                _require_slab(slab, slab.indices(selection.indices), ticket.base.shapes[slab.parameter])


def _require_same_shape(slab: Slab, last: int, ticket: Ticket, checkpoint: ModelCheckpoint) -> None:
    parameter = slab.parameter
    if parameter not in checkpoint.names():
        raise AdapterError(
            f"The ticket has {_NOUNS.get(slab.dim, 'slices')} of {parameter!r}, which the model {checkpoint.name!r} "
            f"does not have. It was found on {ticket.base.name!r}: load that architecture, with its embeddings tied or "
            "untied as there."
        )
    there, here = ticket.base.shapes[parameter], checkpoint.shape(parameter)
    if there != here:
        resized = len(there) == 2 and there[1:] == here[1:] and ticket.granularity == "token_rows"
        way_out = (
            f"Its vocabulary was resized from {there[0]} to {here[0]}; attach the ticket before resizing, or "
            f"model.resize_token_embeddings({there[0]})."
            if resized
            else "Load the base model that the ticket was found on."
        )
        raise AdapterError(
            f"{parameter!r} has shape {here} in the model {checkpoint.name!r}, but {there} in "
            f"{ticket.base.name!r}, on which the ticket was found; its positions go up to {last}. {way_out}"
        )


def _require_slab(slab: Slab, index: np.ndarray, shape: tuple[int, ...]) -> None:
    if slab.lead or len(shape) > 2:
        raise AdapterError(
            f"The ticket selects parts of {slab.parameter!r} of shape {shape}, the fused matrices of a mixture of "
            "experts, of which this version trains no part. Leave them out of the ticket (groups that end in experts)."
        )
    size = math.prod(shape) if slab.dim is None else shape[slab.dim] if slab.dim < len(shape) else 0
    if index.max() >= size or index.min() < 0:
        raise AdapterError(
            f"The ticket selects up to position {int(index.max())} of dimension {slab.dim} of {slab.parameter!r}, "
            f"which has shape {shape}. Its unit groups do not describe this parameter: find the ticket again."
        )


def _require_same_ties(ticket: Ticket, base: PreTrainedModel) -> None:
    head = base.get_output_embeddings()
    if head is None or not TOKEN_GROUPS & set(ticket.selections):
        return
    tied = head.weight is base.get_input_embeddings().weight
    if tied != ("tied" in ticket.selections):
        raise AdapterError(
            f"The model {'ties' if tied else 'does not tie'} its input embedding and output head, but the ticket was "
            f"found on a model that {'does not' if tied else 'does'} ({', '.join(ticket.selections)}): its rows would "
            f"mean another model. Load the base model with tie_word_embeddings={not tied}, or find a new ticket."
        )
