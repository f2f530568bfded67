"""A weight ticket as a dense model of the old shapes, with zeros in what the ticket does not select."""

import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ks_lottery.adapter.weight_base import Piece, Source, WeightBase
from ks_lottery.checkpoints.model_folder import OutgoingTensor
from ks_lottery.ticket.ticket import Selection, Ticket
from ks_lottery.units.slab import Slab


def zero_checkpoint(source: Source, ticket: Ticket, folder: str | os.PathLike[str]) -> Path:
    """Write the base model with zeros in all weights of a ticket's unit groups that it does not select.

    Shapes and configuration stay, so this works for every architecture and granularity. What stays keeps its bits.

    Args:
        source: as in `shrink_checkpoint`.
        ticket: a weight ticket of any granularity.
        folder: as in `shrink_checkpoint`.

    Returns:
        The folder.

    Raises:
        TicketError: if it is no weight ticket, or belongs to another base model.
        CheckpointError: if the base model cannot be read, or is quantised.
        OptionError: if the folder is or holds the base model.
        HubError: if something has to be downloaded and cannot be.

    Cost:
        One pass over the weights, without building the model; memory for a few pieces of 16 MiB, and for one byte for
        each weight of one parameter.
    """
    base = WeightBase(source, ticket, folder)
    owners: dict[str, list[Selection]] = {}
    for selection in ticket.selections.values():
        for parameter in dict.fromkeys(slab.parameter for slab in selection.group.slabs):
            owners.setdefault(parameter, []).append(selection)
    base.write(folder, base.config, (_tensor(base, name, owners.get(name, [])) for name in base.names))
    return Path(folder)


def _tensor(base: WeightBase, name: str, owners: list[Selection]) -> OutgoingTensor:
    shape = base.shape(name)
    return base.tensor(name, name, shape, partial(_with_zeros, name, shape, owners) if owners else None)


def _with_zeros(
    parameter: str, shape: tuple[int, ...], owners: list[Selection], pieces: Iterable[Piece]
) -> Iterator[NDArray[Any]]:
    kept = np.ones(shape, dtype=np.bool_)
    for selection in owners:
        for slab in (slab for slab in selection.group.slabs if slab.parameter == parameter):
            _clear(kept, slab, selection.group.num_units)
            slab.fill(kept, selection.indices, True)
    kept = kept.reshape(shape or (1,))
    for start, piece in pieces:
        yield np.where(kept[start : start + len(piece)], piece, piece.dtype.type(0))


def _clear(kept: NDArray[np.bool_], slab: Slab, num_units: int) -> None:
    """Set all that a slab's units own to False, without a list of its indices."""
    lead: Any = (*slab.lead, ...)
    inside = kept[lead]
    own = slice(slab.start, slab.start + num_units * slab.width)
    if slab.dim is None:
        inside.reshape(-1)[own] = False
    else:
        inside.swapaxes(0, slab.dim - len(slab.lead))[own] = False
