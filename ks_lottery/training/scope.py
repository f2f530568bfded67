"""What the probe trains: a scope of the model, in float32 while it lasts."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.errors import OptionError
from ks_lottery.units.token_rows import input_embedding

SCOPES = ("embedding", "full")


def scope_parameters(model: torch.nn.Module, scope: str) -> dict[str, torch.nn.Parameter]:
    """The parameters of a scope.

    Args:
        model: a transformers model.
        scope: "embedding": the input embedding; where the model ties its embeddings this is the output head too, and
            every row gets gradient from the softmax. "full": everything.

    Returns:
        parameter name to parameter, tied ones once.

    Raises:
        OptionError: if the scope is unknown.
        UnknownNameError, UnitError: if the architecture is not in the table, or the model lacks what the table says.
    """
    parameters = dict(model.named_parameters())
    if scope == "full":
        return parameters
    if scope != "embedding":
        raise OptionError(f"scope={scope!r}: must be one of {', '.join(SCOPES)}.")
    layout = open_checkpoint(model).layout()
    name = input_embedding(layout)
    return {name: parameters[name]}


@contextlib.contextmanager
def only_trainable(model: Any, trained: Mapping[str, torch.nn.Parameter]) -> Iterator[None]:
    """Make exactly `trained` trainable, in float32; afterwards restore flags, dtypes, mode and `use_cache`.

    Raising to float32 is exact; going back to a narrower dtype rounds the trained values.
    """
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    dtypes = [(parameter, parameter.dtype) for parameter in trained.values()]
    modes = [(module, module.training) for module in model.modules()]
    use_cache = getattr(model.config, "use_cache", None)
    kept = {id(parameter) for parameter in trained.values()}
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(id(parameter) in kept)
        for parameter, _ in dtypes:
            parameter.data = parameter.data.float()
        yield
    finally:
        for parameter, dtype in dtypes:
            parameter.grad = None
            parameter.data = parameter.data.to(dtype)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        for module, training in modes:
            module.training = training
        if use_cache is not None:
            model.config.use_cache = use_cache


def needs_autocast(model: torch.nn.Module, trained: Mapping[str, torch.nn.Parameter]) -> bool:
    """Whether frozen weights are narrower than the float32 of the trained ones, so that both meet in one product."""
    return any(
        parameter.is_floating_point() and parameter.dtype != torch.float32
        for name, parameter in model.named_parameters()
        if name not in trained
    )
