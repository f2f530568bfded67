"""From a number for every single weight to a number for every unit."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from ks_lottery.errors import UnitError
from ks_lottery.finders.base import UnitScores
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import Slab, UnitGroup

if TYPE_CHECKING:
    from torch import Tensor

How = Literal["sum", "norm"]


def unit_scores(
    groups: Sequence[UnitGroup], values: "Mapping[str, Tensor]", kind: Kind, how: How = "sum"
) -> Iterator[UnitScores]:
    """Scores of all groups from the scores of single weights.

    A unit of an update ticket whose score is zero cannot be chosen: the batches said nothing of it. For weight tickets
    every unit can be, since a high density has to reach those too.

    Args:
        groups: the units.
        values: parameter name to a number for each weight.
        kind: of ticket.
        how: "sum", or "norm" (Euclidean) over the weights of a unit.

    Yields:
        one entry per group; for single weights the score is a view of `values`, where these lie on the CPU.

    Raises:
        UnitError: if a number is NaN or infinite.
    """
    for group in groups:
        score = reduce_units(group, values, how)
        changed = score != 0 if kind == "update" else np.ones(group.num_units, dtype=bool)
        yield UnitScores(group, score=score, changed=changed, columns={"score": score})


def reduce_units(group: UnitGroup, values: "Mapping[str, Tensor]", how: How = "sum") -> np.ndarray:
    """Reduce over all weights of each unit.

    Returns:
        [num_units] float64; of single weights float32 where `values` are.

    Raises:
        UnitError: if a number is NaN or infinite, or a parameter too small for the units.
    """
    parts = [reduce_slab(slab, values[slab.parameter], group.num_units, how) for slab in group.slabs]
    for slab, part in zip(group.slabs, parts, strict=True):
        finite = np.isfinite(part)
        if not finite.all():
            raise UnitError(
                f"The score of unit {int(finite.argmin())} of {group.name!r} is NaN or infinite in "
                f"{slab.parameter!r}: the gradient overflowed, or the run diverged. Load the model in float32, or take "
                "an earlier checkpoint."
            )
    if len(parts) == 1:
        return parts[0] if group.slabs[0].dim is None and group.slabs[0].width == 1 else parts[0].astype(np.float64)
    whole = np.zeros(group.num_units)
    for part in parts:
        whole = np.hypot(whole, part) if how == "norm" else whole + part
    return whole


def reduce_slab(slab: Slab, values: "Tensor", num_units: int, how: How = "sum") -> np.ndarray:
    """[num_units] sums or norms over the weights that each unit owns in a slab, in the dtype of `values`.

    Raises:
        UnitError: if the parameter is too small for the units.

    Cost:
        Reads the slab once and copies nothing.
    """
    import torch

    blocks, axis = unit_blocks(slab, values, num_units)
    others = [dim for dim in range(blocks.ndim) if dim != axis]
    if not others:
        reduced = blocks.abs() if how == "norm" else blocks
    else:
        reduced = torch.linalg.vector_norm(blocks, dim=others) if how == "norm" else blocks.sum(dim=others)
    return reduced.detach().cpu().numpy()


def unit_blocks(slab: Slab, values: "Tensor", num_units: int) -> "tuple[Tensor, int]":
    """A view of the weights of all units of a slab.

    Args:
        slab: where they are.
        values: tensor of the parameter's shape; contiguous where the slab counts single weights.
        num_units: of the slab's group.

    Returns:
        a view of `values`, in which one axis counts the units and the others the weights of each; and that axis. For
        single weights [num_units].

    Raises:
        UnitError: if the parameter is too small for the units.
    """
    inside = values[slab.lead] if slab.lead else values
    axis = 0 if slab.dim is None else slab.dim - len(slab.lead)
    if slab.dim is None:
        inside = inside.reshape(-1)
    stop = slab.start + num_units * slab.width
    if axis >= inside.ndim or stop > inside.shape[axis]:
        raise UnitError(
            f"{num_units} units of {slab.width} from {slab.start} on do not fit into {slab.parameter!r} of shape "
            f"{tuple(values.shape)}. Score the units of the model that the evidence holds."
        )
    inside = inside.narrow(axis, slab.start, num_units * slab.width)
    if inside.ndim == 1 and slab.width == 1:
        return inside, 0
    return inside.unflatten(axis, (num_units, slab.width)), axis
