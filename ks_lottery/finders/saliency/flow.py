"""What flows through positive weights: through the feed-forward sublayers of a transformer, or a whole network."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ks_lottery.checkpoints.reader import ModelCheckpoint
from ks_lottery.errors import DataError, UnitError
from ks_lottery.finders.saliency.batches import Batches
from ks_lottery.finders.saliency.gradients import undisturbed
from ks_lottery.units.neurons import Neurons
from ks_lottery.units.slab import Slab, UnitGroup, parameters_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Flow:
    """A flow through positive weights.

    Attributes:
        weights: parameter name to the sizes of its weights, float64; whoever drops a weight sets it to zero.
        scores: the flow through every single weight, |w| * dR/d|w|, name to a tensor of the parameter's shape.
    """

    weights: "dict[str, Tensor]"
    scores: "Callable[[], dict[str, Tensor]]"


def network_flow(evidence: Batches, names: Iterable[str]) -> Flow:
    """The flow through a whole module, called with one example of ones; R is the sum of its output, or of the logits.

    Raises:
        DataError: if the first batch has no floating-point tensor.
        UnitError: if a weight is NaN or infinite.
    """
    import torch
    from torch.func import functional_call

    model = evidence.model
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    sizes = {name: _size(name, values) for name, values in state.items()}
    wanted = {name: sizes[name].requires_grad_() for name in names}
    batch = next(evidence.moved())
    shapes = (
        value.shape[1:] for value in batch.values() if getattr(value, "ndim", 0) and value.dtype.is_floating_point
    )
    shape = next(shapes, None)
    if shape is None:
        raise DataError(
            f"SynFlow sends ones through a {type(model).__name__}, but its batch of {', '.join(batch)} holds no "
            "floating-point input to shape them by. Give a batch with the module's input."
        )
    ones = torch.ones(1, *shape, dtype=torch.float64, device=next(model.parameters()).device)

    def scores() -> "dict[str, Tensor]":
        with undisturbed(model):
            output = functional_call(model, sizes, (ones,))
            total = getattr(output, "logits", output).sum()
            gradients = torch.autograd.grad(total, list(wanted.values()), allow_unused=True, materialize_grads=True)
        return {
            name: gradient.mul_(values.detach())
            for (name, values), gradient in zip(wanted.items(), gradients, strict=True)
        }

    return Flow({name: values.detach() for name, values in wanted.items()}, scores)


def feed_forward_flow(model: "torch.nn.Module", groups: Sequence[UnitGroup]) -> Flow:
    """The flow through each feed-forward sublayer, or each expert, on its own, whose R is scaled to 1.

    Raises:
        UnitError: if the groups lie in other matrices, or a weight is NaN or infinite.
        UnknownNameError: if the architecture is not in the table.
    """
    parameters = dict(model.named_parameters())
    touched = set(parameters_of(groups))
    sublayers = [
        (tuple(slab for slab in group.slabs if _is_matrix(slab, parameters)), group.num_units)
        for group in Neurons().groups(ModelCheckpoint(model).layout())
    ]
    sublayers = [(slabs, units) for slabs, units in sublayers if touched & {slab.parameter for slab in slabs}]
    names = dict.fromkeys(slab.parameter for slabs, _ in sublayers for slab in slabs)
    outside = [name for name in touched if name not in names and (parameters[name].ndim > 1 or not sublayers)]
    if outside:
        raise UnitError(
            f"Finder 'synflow' follows the flow through feed-forward sublayers, but the units hold {min(outside)!r}. "
            "Use units='neurons', or Weights(only=('*.mlp.*',)) and the like with the names of this model."
        )
    weights = {name: _size(name, parameters[name]) for name in names}

    def scores() -> "dict[str, Tensor]":
        values = {name: sizes.clone() for name, sizes in weights.items()}
        for slabs, units in sublayers:
            _multiply_by_flow(values, slabs, units)
        return values

    return Flow(weights, scores)


def _multiply_by_flow(values: "Mapping[str, Tensor]", slabs: Sequence[Slab], units: int) -> None:
    """Turn the sizes of one sublayer's weights into their flows, in place.

    R = sum over the neurons of the product, over the matrices, of the sum of the weights that the matrix has for the
    neuron: what it reads from ones, and what the ones behind it read. So dR/d|w| is the product over the other
    matrices.
    """
    import torch

    views = [_by_neuron(values[slab.parameter], slab, units) for slab in slabs]
    sums = torch.stack([view.sum(dim=1 - axis) for view, axis in views])
    total = float(sums.prod(dim=0).sum())
    for position, (view, axis) in enumerate(views):
        others = torch.cat([sums[:position], sums[position + 1 :]]).prod(dim=0)
        if total:
            others = others / total
        view.mul_(others[:, None] if axis == 0 else others[None, :])


def _by_neuron(values: "Tensor", slab: Slab, units: int) -> "tuple[Tensor, int]":
    """The matrix of one slab, as a view, and its axis of neurons."""
    assert slab.dim is not None
    inside = values[slab.lead] if slab.lead else values
    axis = slab.dim - len(slab.lead)
    return inside.narrow(axis, slab.start, units), axis


def _is_matrix(slab: Slab, parameters: "Mapping[str, Tensor]") -> bool:
    return parameters[slab.parameter].ndim - len(slab.lead) == 2


def _size(name: str, values: "Tensor") -> "Tensor":
    """|values| in float64; integers as they are."""
    import torch

    if not values.is_floating_point():
        return values
    sizes = values.detach().to(torch.float64, copy=True).abs_()
    if not sizes.isfinite().all():
        raise UnitError(f"A value of {name!r} is NaN or infinite: the run diverged. Take an earlier checkpoint.")
    return sizes
