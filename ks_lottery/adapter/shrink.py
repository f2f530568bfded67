"""Structural pruning: the smaller dense model that a weight ticket of heads, neurons or layers leaves."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ks_lottery.adapter.weight_base import Piece, Source, WeightBase
from ks_lottery.checkpoints.model_folder import OutgoingTensor
from ks_lottery.errors import TicketError, UnitError
from ks_lottery.ticket.ticket import Ticket
from ks_lottery.units.granularity import granularity
from ks_lottery.units.layout import ModelLayout
from ks_lottery.units.removal import Cut, removal


@dataclass(frozen=True, slots=True)
class ShrunkModel:
    """A smaller model on disk.

    Attributes:
        folder: where it is.
        num_parameters: its single weights, tied ones counted once, and the buffers that its files hold.
        num_parameters_before: those of the model that it was made from.
        config: key of the configuration that changed, to its value before (None if it was not said) and after.
    """

    folder: Path
    num_parameters: int
    num_parameters_before: int
    config: Mapping[str, tuple[Any, Any]]


def shrink_checkpoint(source: Source, ticket: Ticket, folder: str | os.PathLike[str]) -> ShrunkModel:
    """Write the smaller dense model that a weight ticket leaves: without the units that it does not select.

    It computes what the model does whose unselected units are zero (`zero_checkpoint`), and loads where this library
    is not installed. What stays keeps its bits. Units of groups that the ticket does not list stay. Tickets of heads
    and of neurons that were found on one base model can be applied one after the other, layers last.

    Args:
        source: the ticket's base model: a folder, a Hub id, a live model or an opened folder.
        ticket: a weight ticket of heads, neurons or layers.
        folder: where to; an older folder there is replaced as a whole. Files beside the weights of a folder or
            repository are copied (tokenizer, generation config), but not its README; beside a live model there is
            only the generation config.

    Returns:
        The folder, and how much smaller the model is.

    Raises:
        TicketError: if it is no weight ticket, or belongs to another base model.
        UnitError: if the architecture's configuration cannot express the smaller model; the message says why.
        CheckpointError: if the base model cannot be read, or is quantised.
        OptionError: if the folder is or holds the base model.
        HubError: if something has to be downloaded and cannot be.

    Cost:
        One pass over the weights, without building the model; memory for a few pieces of 16 MiB, or one row (of a
        mixture, one expert's matrix).
    """
    base = WeightBase(source, ticket, folder)
    layout = base.checkpoint.layout()
    _require_groups(ticket, layout)
    plan = removal(layout, ticket.granularity, ticket.indices)
    config, changed = _smaller_config(base, plan.config)
    beside = {name: name for name in base.names if name not in layout.shapes}
    tensors = [_tensor(base, name, after, plan.cuts.get(name)) for name, after in {**plan.names, **beside}.items()]
    base.write(folder, config, tensors)
    before = sum(math.prod(base.shape(name)) for name in base.names)
    return ShrunkModel(Path(folder), sum(math.prod(tensor.shape) for tensor in tensors), before, changed)


def _require_groups(ticket: Ticket, layout: ModelLayout) -> None:
    groups = {group.name: group for group in granularity(ticket.granularity).groups(layout)}
    for name, selection in ticket.selections.items():
        mine, theirs = selection.group, groups.get(name)
        if theirs is None or mine.num_units != theirs.num_units or not set(mine.slabs) <= set(theirs.slabs):
            raise TicketError(
                f"The ticket's group {name!r} is none of the {ticket.granularity} of this {layout.model_type!r} model, "
                "or lies elsewhere in it. Find the ticket again with this version."
            )


def _tensor(base: WeightBase, name: str, after: str, cut: Cut | None) -> OutgoingTensor:
    if cut is None:
        return base.tensor(name, after, base.shape(name))
    return base.tensor(name, after, cut.shape(base.shape(name)), partial(_left, cut), by_row=len(cut.kept) > 1)


def _left(cut: Cut, pieces: Iterable[Piece]) -> Iterator[NDArray[Any]]:
    """What is left of a parameter, piece by piece."""
    for start, piece in pieces:
        kept = cut.kept[0]
        if len(cut.kept) > 1:
            kept = cut.kept[start]
        elif cut.dim == 0:
            first, last = np.searchsorted(kept, (start, start + len(piece)))
            kept = kept[first:last] - start
        yield piece.take(kept, cut.dim)


def _smaller_config(base: WeightBase, changes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, tuple[Any, Any]]]:
    """The configuration with some keys of its text model changed; and each changed key with its values.

    Raises:
        UnitError: if transformers refuses it, or makes other values of it.
    """
    full = base.checkpoint.config
    text = full.get_text_config()
    nested = next((key for key, value in vars(full).items() if value is text), None)
    section: dict[str, Any] = dict(base.config if nested is None else base.config.get(nested, {}))
    for alias, key in text.attribute_map.items():
        if key in changes:
            section.pop(alias, None)
    section |= changes
    config = section if nested is None else base.config | {nested: section}
    try:
        after = type(full).from_dict(json.loads(json.dumps(config))).get_text_config().to_dict()
        unread = [f"{key}={after.get(key)!r} of {value!r}" for key, value in changes.items() if after.get(key) != value]
        if unread:
            raise ValueError(f"It makes {unread[0]}.")
    except Exception as error:
        said = ", ".join(f"{key}={value!r}" for key, value in changes.items())
        raise UnitError(
            f"The configuration of a {full.model_type!r} model does not take {said}: {' '.join(str(error).split())} "
            "Select another number of units; or keep the shapes and write zeros, which any ticket allows: "
            "zero_checkpoint(source, ticket, folder)."
        ) from error
    before = text.to_dict()
    return config, {key: (before.get(key), value) for key, value in changes.items() if before.get(key) != value}
