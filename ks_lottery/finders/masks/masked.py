"""A live model under a mask: m * theta or theta0 + m * delta, and what the loss says of m."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ks_lottery.checkpoints.reader import Checkpoint
from ks_lottery.errors import CheckpointError, OptionError, UnitError
from ks_lottery.finders.masks.frozen import Frozen
from ks_lottery.finders.saliency.gradients import handed_over, undisturbed
from ks_lottery.finders.saliency.reduction import unit_blocks
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import Slab, UnitGroup, parameters_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter


class MaskedModel:
    """Writes masks into a model's weights, and reads off what a loss says of the masks.

    A mask is one flat tensor [units] float32 over all groups, in their order, on `device`: 1 keeps a unit, 0 leaves it
    out, and numbers between are a part of it. Weights that no unit owns are as in the model.

    Attributes:
        groups: the units.
        kind: "weight": m * theta; "update": theta0 + m * (after - theta0).
        sizes: units of each group.
        wanted: parameters that the units touch, by name; they ask for gradients.
        device: of masks and their gradients.
    """

    def __init__(
        self,
        groups: Sequence[UnitGroup],
        kind: Kind,
        wanted: "Mapping[str, Parameter]",
        base: "Mapping[str, Tensor]",
        deltas: "Mapping[str, Tensor] | None",
    ) -> None:
        self.groups, self.kind, self.wanted = tuple(groups), kind, dict(wanted)
        self.sizes = [group.num_units for group in groups]
        self.device = next(iter(self.wanted.values())).device
        self._base = base
        self._scaled = base if deltas is None else deltas
        self._slabs: dict[str, list[tuple[int, Slab]]] = {name: [] for name in self.wanted}
        for number, group in enumerate(groups):
            for slab in group.slabs:
                self._slabs[slab.parameter].append((number, slab))

    @property
    def num_units(self) -> int:
        """Units of all groups."""
        return sum(self.sizes)

    def split(self, flat: "Tensor") -> "list[Tensor]":
        """Views of a flat tensor [units], one per group."""
        return list(flat.split(self.sizes))

    def write(self, mask: "Tensor") -> None:
        """Put the model under a mask.

        Args:
            mask: [units] float32 on `device`.

        Cost:
            One pass over the touched parameters.
        """
        import torch

        masks = self.split(mask.detach())
        for name, parameter in self.wanted.items():
            for number, slab in self._slabs[name]:
                blocks, axis = unit_blocks(slab, parameter.data, self.sizes[number])
                scaled, _ = unit_blocks(slab, self._scaled[name], self.sizes[number])
                shape = [1] * blocks.ndim
                shape[axis] = self.sizes[number]
                factor = masks[number].to(parameter).view(shape)
                if self.kind == "weight":
                    torch.mul(scaled, factor, out=blocks)
                else:
                    base, _ = unit_blocks(slab, self._base[name], self.sizes[number])
                    torch.addcmul(base, scaled, factor, out=blocks)

    def gradient(self, objective: "Callable[[], Tensor]") -> "Tensor":
        """Derivative of an objective with respect to the mask, where it is.

        Args:
            objective: computes a scalar from the model as it is; may differentiate with respect to `wanted` itself.

        Returns:
            [units] float32 on `device`: the sum of dL/dw * theta (or delta) over the weights of each unit; 0 where the
            objective does not depend on them.

        Cost:
            What the objective costs, one backward pass, and the gradient of one parameter at a time.
        """
        import torch

        sums = torch.zeros(self.num_units, device=self.device)
        parts = self.split(sums)

        def visit(name: str, gradient: "Tensor") -> None:
            gradient, scaled = gradient.detach(), self._scaled[name]
            if self._is_units(name) and gradient.dtype == torch.float32:
                torch.mul(gradient.reshape(-1), scaled.reshape(-1), out=parts[self._slabs[name][0][0]])
                return
            product = gradient.mul_(scaled)
            for number, slab in self._slabs[name]:
                blocks, axis = unit_blocks(slab, product, self.sizes[number])
                others = [dim for dim in range(blocks.ndim) if dim != axis]
                parts[number].add_(blocks.sum(dim=others, dtype=torch.float32) if others else blocks)

        with handed_over(self.wanted, visit):
            objective().backward()
        return sums

    def _is_units(self, name: str) -> bool:
        """Whether the weights of a parameter are the units of one group, one each and in their order."""
        slabs = self._slabs[name]
        number, slab = slabs[0]
        whole = (slab.dim, slab.width, slab.start, slab.lead) == (None, 1, 0, ())
        return whole and len(self.groups[number].slabs) == 1 and self.sizes[number] == self.wanted[name].numel()

    def movable(self) -> np.ndarray:
        """[units] bool: False where a unit of an update ticket did not move at all, so that its mask says nothing."""
        import torch

        if self.kind == "weight":
            return np.ones(self.num_units, dtype=bool)
        moved = torch.zeros(self.num_units, dtype=torch.bool, device=self.device)
        parts = self.split(moved)
        for name, slabs in self._slabs.items():
            for number, slab in slabs:
                blocks, axis = unit_blocks(slab, self._scaled[name] != 0, self.sizes[number])
                others = [dim for dim in range(blocks.ndim) if dim != axis]
                parts[number].logical_or_(blocks.sum(dim=others) > 0 if others else blocks)
        found: np.ndarray = moved.cpu().numpy()
        return found


@contextmanager
def masked(evidence: Frozen, groups: Sequence[UnitGroup], kind: Kind) -> Iterator[MaskedModel]:
    """Put a frozen model under a mask of ones; afterwards it is as before, bit for bit.

    Inside, the model is in evaluation mode and random numbers of torch are the caller's again afterwards.

    Args:
        evidence: the model, and `after` for update tickets.
        groups: of the model; no weight belongs to two units.
        kind: of ticket.

    Raises:
        OptionError: if an update ticket is asked for without `after`.
        UnitError: if the model lacks a parameter, it is no float, or a value of it or of its move is NaN or infinite.
        CheckpointError: if `after` is of another shape.

    Cost:
        A copy of the touched parameters; for update tickets two.
    """
    import torch

    if kind == "update" and evidence.tuned is None:
        raise OptionError(
            "An update ticket masks the move from the model to `after`, but the evidence has none. Give it: "
            "Frozen(model, batches, after=tuned_model); or ask for kind='weight'."
        )
    with undisturbed(evidence.model, parameters_of(groups)) as wanted:
        _require_finite(wanted)
        deltas = None if kind == "weight" else _moves(wanted, evidence.tuned)
        originals = {name: parameter.data for name, parameter in wanted.items()}
        try:
            for parameter in wanted.values():
                parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
            model = MaskedModel(groups, kind, wanted, originals, deltas)
            model.write(torch.ones(model.num_units, device=model.device))
            yield model
        finally:
            for name, parameter in wanted.items():
                parameter.data = originals[name]


def _moves(wanted: "Mapping[str, Parameter]", after: Checkpoint | None) -> "dict[str, Tensor]":
    """What is added to a weight by `after`, for each parameter, in its dtype and on its device."""
    assert after is not None
    moves = {}
    for name, parameter in wanted.items():
        if name not in after.names() or tuple(after.shape(name)) != tuple(parameter.shape):
            has = f"shape {tuple(after.shape(name))}" if name in after.names() else "no such parameter"
            raise CheckpointError(
                f"{name!r} has shape {tuple(parameter.shape)} in the model, but {after.name!r} has {has}. Give the "
                "checkpoint of the same architecture."
            )
        moves[name] = after.rows(name).to(parameter.device, parameter.dtype) - parameter.data
        after.release(name)
    _require_finite(moves, f"the move to {after.name!r}")
    return moves


def _require_finite(values: "Mapping[str, Tensor]", what: str = "the model") -> None:
    for name, tensor in values.items():
        if not tensor.isfinite().all():
            raise UnitError(
                f"{name!r} has NaN or infinite values in {what}. Take an earlier checkpoint, or load it in float32."
            )
