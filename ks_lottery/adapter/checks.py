"""What must hold before any module of a model is replaced: the parts exist there and can be trained and merged."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ks_lottery.adapter.layer import RowLayer, TiedRowLayer
from ks_lottery.adapter.overlap import outside
from ks_lottery.adapter.parts import COLUMNS, ENTRIES, ROWS, PartKind, TicketLayer
from ks_lottery.checkpoints.live_model import full_shape
from ks_lottery.errors import AdapterError

if TYPE_CHECKING:
    from ks_lottery.adapter.config import LotteryConfig, Part

_NOUNS = {0: "rows", 1: "columns", None: "single values"}
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def require_parts(model: nn.Module, config: "LotteryConfig") -> None:
    """Check that a model has the parts of an adapter, and shares its matrices as the adapter expects.

    Args:
        model: with or without other adapters.
        config: `tied_modules` is filled in where it is unknown.

    Raises:
        AdapterError: if not; with the module and the reason.
    """
    owners = _owners(model)
    _require_apart(model, config)
    for name, parts in config.parts.items():
        try:
            module = model.get_submodule(name)
        except AttributeError as error:
            raise AdapterError(
                f"The adapter trains rows of the module {name!r}, which this {type(model).__name__} does not have "
                f"({error}). Load it on the model class that it was trained on."
            ) from error
        base = module.get_base_layer() if isinstance(module, TicketLayer) else module
        require_trainable(name, base, parts)
        _require_room(name, base, parts)
        sharing = {
            parameter: [other for other in owners[id(held)] if other != name]
            for parameter in ("weight", "bias")
            if (held := getattr(base, parameter, None)) is not None
        }
        if set(parts) == {ROWS}:
            _agree_on_sharing(model, name, sharing["weight"], config)
        else:
            _require_own(name, module, sharing, parts)
            if ROWS in parts:
                config.tied_modules.setdefault(name, [])


def _require_apart(model: nn.Module, config: "LotteryConfig") -> None:
    """Check that no part lies in a module that is trained whole, which PEFT finds by the end of its name."""
    for whole in config.modules_to_save or ():
        for name in config.parts:
            modules = [name[:end] for end in range(len(name) + 1) if end == len(name) or name[end] == "."]
            if any(module == whole or module.endswith(f".{whole}") for module in modules):
                raise AdapterError(
                    f"The adapter trains parts of {name!r} and, with modules_to_save, all of {whole!r}, in which it "
                    "lies. Leave one of them out."
                )


def _require_room(name: str, module: nn.Module, parts: "Mapping[PartKind, Part]") -> None:
    """Check that a module has as many slices or values as an adapter trains of it, and each at its place."""
    for kind, (count, positions) in parts.items():
        shape = full_shape(getattr(module, kind.parameter))
        size = math.prod(shape) if kind.dim is None else shape[kind.dim]
        last = count - 1 if positions is None or not len(positions) else int(positions[-1])
        if max(count - 1, last) >= size:
            raise AdapterError(
                f"The adapter trains {count} {_NOUNS[kind.dim]} of the {kind.parameter} of {name!r}, up to {last}, "
                f"which has only {size}. Load it on the model that it was trained on."
            )


def require_trainable(name: str, module: nn.Module, kinds: Iterable[PartKind]) -> None:
    """Check that parts of a module can be trained; before any module of the model is replaced.

    Args:
        name: of the module in its model.
        module: as it is in the base model.
        kinds: which parts.

    Raises:
        AdapterError: if not; with the reason.
    """
    for kind in kinds:
        if getattr(module, kind.parameter, None) is None:
            found = ", ".join(n for n, _ in module.named_parameters(recurse=False)) or "no parameter of its own"
            raise AdapterError(
                f"{name!r} is a {_kind_of(module)} without a {kind.parameter}; it has {found}. Only weights and biases "
                "of linear layers, embeddings and norms can be trained in parts."
            )
    if isinstance(module, nn.Embedding):
        if set(kinds) != {ROWS}:
            raise AdapterError(
                f"{name!r} is an embedding, of which only whole rows can be trained. Choose rows of it, or leave its "
                "matrix out of the ticket (the option only of the units)."
            )
    elif isinstance(module, nn.Linear | Conv1D):
        _require_plain(name, module)
    elif any(True for _ in module.children()) or any(
        kind.dim is not None or len(full_shape(getattr(module, kind.parameter))) != 1 for kind in kinds
    ):
        raise AdapterError(
            f"{name!r} is a {_kind_of(module)}, which computes with its parameters in a way of its own. Supported are "
            "nn.Linear, Conv1D, nn.Embedding (rows), and the vectors of norms. Leave it out of the ticket."
        )


def _require_plain(name: str, module: nn.Module) -> None:
    weight: Any = module.weight
    ordinary = type(weight) in (Tensor, nn.Parameter) or type(weight).__name__ == "DTensor"
    if weight.dtype not in _FLOATS or not ordinary:
        stored = str(weight.dtype) if ordinary or weight.dtype not in _FLOATS else type(weight).__name__
        raise AdapterError(
            f"The weight of {name!r}, a {_kind_of(module)}, is quantised ({stored}): what is tuned could not be merged "
            "into it exactly. Load the base model without quantisation, or exclude the module from it "
            "(llm_int8_skip_modules)."
        )
    bypassed = isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear)
    if bypassed or not _multiplies_plainly(module):
        way = "whose matrix nn.MultiheadAttention reads past it" if bypassed else "which is more than a product with it"
        raise AdapterError(
            f"{name!r} is a {_kind_of(module)}, {way}, so merged and unmerged weights would differ. Leave it out of "
            "the ticket."
        )


@torch.no_grad()
def _multiplies_plainly(module: Any) -> bool:
    """Whether a linear layer computes what its class's parent does; classes that leave `forward` alone do."""
    readable = module.weight.numel() > 0 and not module.weight.is_meta
    if type(module).forward in (nn.Linear.forward, Conv1D.forward) or not readable:
        return True
    transposed = isinstance(module, Conv1D)
    inputs = module.weight.shape[0 if transposed else 1]
    hidden = torch.linspace(-1, 1, 2 * inputs, device=module.weight.device).view(2, inputs).to(module.weight.dtype)
    expected = (Conv1D if transposed else nn.Linear).forward(module, hidden)
    return torch.allclose(module(hidden), expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))


def _kind_of(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__name__}"


def _owners(model: nn.Module) -> dict[int, list[str]]:
    """Names of the modules that hold a parameter, by its id; a ticket layer counts as the module in it."""
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        for parameter in module._parameters.values():
            names = owners.setdefault(id(parameter), [])
            if (plain := name.removesuffix(".base_layer")) not in names:
                names.append(plain)
    return owners


def _require_own(
    name: str, module: nn.Module, sharing: Mapping[str, Sequence[str]], parts: "Mapping[PartKind, Part]"
) -> None:
    chosen = {"weight", *(kind.parameter for kind in parts)}
    others = sorted({other for parameter in chosen for other in sharing.get(parameter, ())})
    if others or isinstance(module, RowLayer | TiedRowLayer):
        reason = f"shares parameters with {_names(others)}" if others else "has an adapter of token rows already"
        raise AdapterError(
            f"{name!r} {reason}, so nothing but whole rows can be trained there. Leave it out of the ticket, or load "
            "the model with untied embeddings (tie_word_embeddings=False) and find the ticket on that."
        )
    base: Any = module.get_base_layer() if isinstance(module, TicketLayer) else module
    rows, columns, entries = (parts[kind][1] if kind in parts else () for kind in (ROWS, COLUMNS, ENTRIES))
    if rows is None or columns is None or entries is None or not (len(rows) or len(columns)):
        return
    apart = outside(entries, rows, columns, full_shape(base.weight)[-1])
    if not apart.all():
        raise AdapterError(
            f"{int((~apart).sum())} of the {len(apart)} single weights of {name!r} lie in its chosen rows or columns, "
            f"and a weight is trained once; the first one is {int(np.asarray(entries)[~apart][0])}. Leave them out."
        )


def _agree_on_sharing(model: nn.Module, name: str, live: Sequence[str], config: "LotteryConfig") -> None:
    for other in live:
        if other in config.rows or isinstance(model.get_submodule(other), RowLayer):
            raise AdapterError(
                f"{name!r} and {other!r} share one matrix in this model, so their rows cannot be chosen apart. Give "
                f"the rows of one of them, {other!r} if it has an adapter already; the other one follows."
            )
    known = config.tied_modules.setdefault(name, list(live))
    if set(known) != set(live):
        raise AdapterError(
            f"The adapter was trained where {name!r} shares its matrix with {_names(known)}, but in this model it "
            f"shares it with {_names(live)}: the same rows would mean another model. Load the base model with the same "
            "tie_word_embeddings as in training."
        )


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(repr, sorted(names))) or "no other module"
