"""Gradients of batches, handed over parameter by parameter, by a model that is as before afterwards."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from ks_lottery.errors import UnitError
from ks_lottery.finders.saliency.batches import Batches, Loss, examples_in

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Parameter

Visit = Callable[[str, "Tensor"], None]


@contextmanager
def undisturbed(model: "torch.nn.Module", names: Iterable[str] = ()) -> "Iterator[dict[str, Parameter]]":
    """Set a model up for scoring, and put it back: gradients, flags, modes of all modules, random numbers.

    Inside, the model is in evaluation mode (no dropout), has no gradients, and only the named parameters ask for one.

    Yields:
        the named parameters.

    Raises:
        UnitError: if the model lacks a parameter, or it has no gradient since its numbers are no floats.
    """
    import torch

    parameters = dict(model.named_parameters())
    wanted = {name: _differentiable(parameters, name) for name in names}
    modes = [(module, module.training) for module in model.modules()]
    kept = [(parameter, parameter.requires_grad, parameter.grad) for parameter in parameters.values()]
    devices = sorted({parameter.device.index for parameter in parameters.values() if parameter.is_cuda})
    with torch.random.fork_rng(devices), torch.enable_grad():
        try:
            model.eval()
            for parameter, _, _ in kept:
                parameter.requires_grad_(False)
                parameter.grad = None
            for parameter in wanted.values():
                parameter.requires_grad_(True)
            yield wanted
        finally:
            for module, training in modes:
                module.training = training
            for parameter, flag, gradient in kept:
                parameter.requires_grad_(flag)
                parameter.grad = gradient


def visit_gradients(evidence: Batches, wanted: "Mapping[str, Parameter]", visit: Visit) -> None:
    """Run every batch forward and backward, in order.

    Args:
        evidence: its passes are counted.
        wanted: what `undisturbed` gave.
        visit: gets (name, gradient of the batch's loss) as soon as the gradient is complete, and owns it. It may change
            the parameter: nothing of the batch reads it any more. Parameters that the loss does not depend on are not
            visited.

    Raises:
        UnitError: if a loss is NaN or infinite, or depends on none of the parameters.

    Cost:
        The passes, and the gradient of one parameter at a time beyond what `visit` keeps.
    """
    with handed_over(wanted, visit):
        for number, batch in enumerate(evidence.moved()):
            loss = loss_of(evidence, evidence.loss, wanted, number, batch)
            loss.backward()
            evidence.passes.count(backward=examples_in(batch))


def summed_gradients(evidence: Batches, wanted: "Mapping[str, Parameter]") -> "dict[str, Tensor]":
    """Sum over the batches of the gradients of their mean losses.

    Returns:
        name to a tensor of the parameter's shape, of at least float32; zeros where the loss depends on nothing of it.
    """
    sums = Sums(wanted)
    visit_gradients(evidence, wanted, sums.add)
    return sums.tensors()


class Sums:
    """Running sums, one for each parameter, of at least float32.

    Args:
        wanted: the parameters.
    """

    def __init__(self, wanted: "Mapping[str, Parameter]") -> None:
        self._wanted = wanted
        self._sums: dict[str, Tensor] = {}

    def add(self, name: str, values: "Tensor") -> None:
        """Add values that the caller gives away."""
        if name in self._sums:
            self._sums[name] += values
        else:
            self._sums[name] = widened(values)

    def add_product(self, name: str, one: "Tensor", other: "Tensor", factor: float = 1.0) -> None:
        """Add factor * one * other."""
        one, other = widened(one), widened(other)
        if name in self._sums:
            self._sums[name].addcmul_(one, other, value=factor)
        else:
            self._sums[name] = (one * other).mul_(factor)

    def tensors(self) -> "dict[str, Tensor]":
        """All sums; zeros where nothing was added."""
        import torch

        return {
            name: self._sums[name] if name in self._sums else widened(torch.zeros_like(parameter, requires_grad=False))
            for name, parameter in self._wanted.items()
        }


def widened(values: "Tensor") -> "Tensor":
    """The same values in float32, or as they are where they are at least that."""
    import torch

    return values.to(torch.promote_types(values.dtype, torch.float32))


@contextmanager
def handed_over(wanted: "Mapping[str, Parameter]", visit: Visit) -> Iterator[None]:
    """While a backward pass runs, hand every complete gradient to `visit` instead of keeping it."""
    handles = [
        parameter.register_post_accumulate_grad_hook(partial(_hand_over, name, visit))
        for name, parameter in wanted.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def loss_of(
    evidence: Batches, loss: Loss, wanted: "Mapping[str, Tensor]", number: int, batch: Mapping[str, "Tensor"]
) -> "Tensor":
    """Loss of one batch, counted as a forward pass.

    Raises:
        UnitError: if it is NaN or infinite, or depends on none of the wanted tensors.
    """
    value = loss(evidence.model, batch)
    evidence.passes.count(forward=examples_in(batch))
    if not value.isfinite().all():
        broken = (name for name, values in evidence.model.named_parameters() if not values.isfinite().all())
        raise UnitError(
            f"The loss of batch {number} is {value.item():g}; the first parameter with NaN or infinite values: "
            f"{next(broken, 'none')}. Take an earlier checkpoint, or load the model in float32."
        )
    if not value.requires_grad:
        raise UnitError(
            f"The loss of batch {number} depends on none of {', '.join(list(wanted)[:3])} ...: it has no gradient. "
            "Compute it from the model's outputs and outside torch.no_grad."
        )
    return value


def _hand_over(name: str, visit: Visit, parameter: "Tensor") -> None:
    gradient, parameter.grad = parameter.grad, None
    assert gradient is not None
    visit(name, gradient.to_dense() if gradient.is_sparse else gradient)


def _differentiable(parameters: "Mapping[str, Parameter]", name: str) -> "Parameter":
    if name not in parameters:
        raise UnitError(
            f"The units lie in {name!r}, but the model of the evidence has no such parameter; it has "
            f"{', '.join(list(parameters)[:4])}. Score the units of the model that Batches holds."
        )
    parameter = parameters[name]
    if not parameter.is_floating_point():
        raise UnitError(
            f"{name!r} holds {parameter.dtype} and has no gradient. Load the model without quantisation, in float32 or "
            "bfloat16."
        )
    return parameter
