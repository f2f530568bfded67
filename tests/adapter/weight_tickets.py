"""Weight tickets of tiny models, and the same models with zeros, for the tests of shrinking."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.ticket.identity import identify
from ks_lottery.ticket.ticket import Kind, Provenance, Selection, Ticket
from ks_lottery.units.granularity import Granularity, granularity
from ks_lottery.units.slab import UnitGroup, parameters_of

Choose = Callable[[UnitGroup], Any]


def weight_ticket(
    source: str | os.PathLike[str] | nn.Module, units: str | Granularity, choose: Choose, kind: Kind = "weight"
) -> Ticket:
    """A ticket of the units that `choose` names in each group."""
    checkpoint = open_checkpoint(source)
    groups = tuple(granularity(units).groups(checkpoint.layout()))
    selections = {group.name: Selection(group, np.asarray(choose(group), dtype=np.int64)) for group in groups}
    base = identify(checkpoint, parameters_of(groups))
    return Ticket(kind, granularity(units).name, selections, base, Provenance("hand"))


def drawn(group: UnitGroup, share: float = 0.5) -> np.ndarray:
    """Units drawn for each group on its own; of single units, all but those of the second layer."""
    if group.num_units == 1:
        return np.arange(0 if group.name.endswith("layers.1") else 1)
    seed = sum(map(ord, group.name))
    return np.random.default_rng(seed).permutation(group.num_units)[: round(group.num_units * share)]


@contextmanager
def zeros(model: nn.Module, ticket: Ticket) -> Iterator[None]:
    """The model with zeros in what a ticket does not select; put back at the end."""
    parameters = dict(model.named_parameters())
    before = {name: parameters[name].detach().clone() for name in ticket.base.shapes}
    with torch.no_grad():
        for selection in ticket.selections.values():
            gone = np.setdiff1d(np.arange(selection.group.num_units), selection.indices)
            for slab in selection.group.slabs:
                slab.fill(parameters[slab.parameter], gone, 0.0)
        yield
        for name, values in before.items():
            parameters[name].copy_(values)


def loaded(folder: str | os.PathLike[str], kind: str) -> nn.Module:
    """A model of a folder, by transformers alone."""
    model: nn.Module = getattr(transformers, kind).from_pretrained(folder, attn_implementation="eager").eval()
    return model


def outputs(model: Any) -> Tensor:
    """Logits of a fixed input, or hidden states of a bare model."""
    tokens = torch.tensor([[3, 7, 5, 11, 4], [6, 3, 19, 8, 10]])
    inputs: dict[str, Any] = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if model.config.model_type == "vit":
        inputs = {"pixel_values": torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8).sin()}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = tokens.flip(0)
    with torch.no_grad():
        result = model(**inputs)
    return result["logits"] if "logits" in result else result["last_hidden_state"]
