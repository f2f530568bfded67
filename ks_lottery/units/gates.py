"""Multiplicative gates: one number for each attention head or feed-forward neuron, by which its output is scaled."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ks_lottery.errors import UnitError
from ks_lottery.units.heads import Heads
from ks_lottery.units.layout import ModelLayout
from ks_lottery.units.neurons import Neurons
from ks_lottery.units.slab import Slab, UnitGroup

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the units of a group are read: values [start + i * width, ...) that `module` reads belong to unit i."""

    module: "torch.nn.Module"
    slab: Slab
    num_units: int


class Gates:
    """Gates of a live model, in front of its attention output and down projections.

    With a gate of 1 nothing changes; with 0 a unit adds nothing, as if its weights were zero. The bias of the
    projection is not gated. A unit of several query heads (grouped-query attention) has one gate for all of them.

        gates = Gates(model, groups)
        values = {group.name: torch.nn.Parameter(torch.ones(group.num_units)) for group in groups}
        with gates.installed(values):
            model(**batch).loss.backward()
        gates.fold(values)

    Args:
        model: a transformers model; its weights are read at each forward pass.
        groups: what granularity `heads` or `neurons` made for this model.

    Raises:
        UnitError: if a group is none of those, or its neurons are experts of a mixture.
        UnknownNameError: if the architecture is not in the table.
    """

    def __init__(self, model: "torch.nn.Module", groups: Sequence[UnitGroup]) -> None:
        known = _gated_groups(model)
        self._places = {group.name: _place(model, group, known) for group in groups}

    def installed(self, gates: "Mapping[str, Tensor]") -> ExitStack:
        """Put gates in front of the projections, until the returned context is left or closed.

        Args:
            gates: group name to [units], or to [examples, 1, units] with a gate for each example of the batch; on any
                device, and of any dtype: they are cast to what they scale. They are read at each forward pass, so an
                optimizer may change them. Groups without one are left as they are.

        Raises:
            UnitError: if a gate belongs to no group, or has another shape.
        """
        for name, gate in gates.items():
            self._require_shape(name, gate, "[units] or [examples, 1, units]", (1, 3))
        stack = ExitStack()
        for name, gate in gates.items():
            place = self._places[name]
            stack.callback(place.module.register_forward_pre_hook(partial(_scale, gate, place)).remove)
        return stack

    def fold(self, gates: "Mapping[str, Tensor]") -> None:
        """Multiply gates into the weights of the projections, in place: the model then needs no gates.

        Args:
            gates: group name to [units].

        Raises:
            UnitError: if a gate belongs to no group, or has another shape.
        """
        import torch

        for name, gate in gates.items():
            self._require_shape(name, gate, "[units]", (1,))
        with torch.no_grad():
            for name, gate in gates.items():
                place = self._places[name]
                weight: Tensor = place.module.get_parameter("weight")
                assert place.slab.dim is not None
                columns = weight.movedim(place.slab.dim, -1)
                columns.mul_(gate.detach().to(weight).repeat_interleave(place.slab.width))

    def _require_shape(self, name: str, gate: "Tensor", wanted: str, dimensions: tuple[int, ...]) -> None:
        if name not in self._places:
            raise UnitError(
                f"A gate is given for {name!r}, but the gated groups are {', '.join(list(self._places)[:4])}. Name "
                "groups that Gates was made with."
            )
        shape, units = tuple(gate.shape), self._places[name].num_units
        if len(shape) not in dimensions or shape[-1] != units or (len(shape) == 3 and shape[1] != 1):
            raise UnitError(f"The gate of {name!r} has shape {shape}; with {units} units it must be {wanted}.")


def _scale(gate: "Tensor", place: _Place, _: Any, inputs: "tuple[Tensor, ...]") -> "tuple[Tensor, ...]":
    """Scale what a projection reads; a forward pre-hook."""
    values = inputs[0]
    gate = gate.to(values)
    if gate.ndim == 1:
        blocks = values.unflatten(-1, (place.num_units, place.slab.width)) * gate[:, None]
        return (blocks.flatten(-2), *inputs[1:])
    if values.numel() % (len(gate) * values.shape[-1]):
        raise UnitError(
            f"There are gates for {len(gate)} examples, but {place.slab.parameter!r} reads values of shape "
            f"{tuple(values.shape)}. Give one gate for each example of the batch."
        )
    blocks = values.reshape(len(gate), -1, place.num_units, place.slab.width) * gate[..., None]
    return (blocks.reshape(values.shape), *inputs[1:])


def _gated_groups(model: "torch.nn.Module") -> dict[str, UnitGroup]:
    """All heads and neurons of a model that has them."""
    config: Any = model.config
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    layout = ModelLayout(config.model_type, shapes, tied=False, config=lambda: config.get_text_config().to_dict())
    groups: list[UnitGroup] = []
    for units in (Heads(), Neurons()):
        with suppress(UnitError):
            groups += units.groups(layout)
    return {group.name: group for group in groups}


def _place(model: "torch.nn.Module", group: UnitGroup, known: Mapping[str, UnitGroup]) -> _Place:
    if known.get(group.name) != group:
        raise UnitError(
            f"{group.name!r} is no group of attention heads or feed-forward neurons of this {type(model).__name__}, so "
            "it has no gates. Use units='heads' or units='neurons', of this model."
        )
    out = group.slabs[-1]
    name, _, last = out.parameter.rpartition(".")
    if out.lead or last != "weight":
        raise UnitError(
            f"The neurons {group.name!r} are those of experts, fused in {out.parameter!r}, and cannot be gated one by "
            "one. Use units='heads', or a finder without gates such as 'snip'."
        )
    return _Place(model.get_submodule(name), out, group.num_units)
