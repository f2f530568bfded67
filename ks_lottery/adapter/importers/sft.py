"""From a sparse fine-tuning of another library to a ticket and an adapter."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel, get_peft_model
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor, nn

from ks_lottery.adapter.attach import task_type
from ks_lottery.adapter.config import LotteryConfig
from ks_lottery.adapter.fit import ChosenPart, chosen_parts
from ks_lottery.adapter.importers.composable_sft import FILE, read_composable_sft
from ks_lottery.adapter.importers.sft_adapter import CONFIG, WEIGHTS, read_sft_adapter
from ks_lottery.adapter.importers.sparse_update import SparseChange, SparseUpdate
from ks_lottery.adapter.parts import PartLayer, position_options
from ks_lottery.adapter.tuned import PEFT_PREFIX, namesakes
from ks_lottery.checkpoints.download import download
from ks_lottery.checkpoints.live_model import ModelCheckpoint
from ks_lottery.errors import AdapterError, CheckpointError
from ks_lottery.ticket.identity import identify
from ks_lottery.ticket.ticket import Provenance, Selection, Ticket
from ks_lottery.units.slab import Slab, UnitGroup, parameters_of

_SHOWN = 3


def import_sft(
    path: str | os.PathLike[str], base_model: nn.Module, *, with_abs: bool = True, whole_rows: bool = False
) -> tuple[Ticket, PeftModel]:
    """Read a sparse fine-tuning that composable-sft or the SFT fork of PEFT wrote.

    Args:
        path: a folder or Hub id with `pytorch_diff.bin` (composable-sft, LT-SFT), or with an `adapter_config.json` of
            type SFT (AlanAnsell/peft, SpIEL); or a file of the first kind.
        base_model: the model that it was trained on; it is changed in place, as by `attach_ticket`.
        with_abs: also take tensors that were trained whole, as a rule a head; they become `modules_to_save`. False
            where the model at hand has another head, as for a language fine-tuning under a task.
        whole_rows: take the whole rows of embeddings in which changed weights lie. Of embeddings only whole rows can be
            trained; the other weights of these rows start with a change of zero, and move in further training.

    Returns:
        the ticket (kind "update", granularity "weights", one group for each parameter), and the model with an adapter
        that holds the values.

    Raises:
        CheckpointError: if there is no such file, it is damaged, or it cannot be read without running code in it.
        AdapterError: if it does not fit the model, or embeddings are changed and `whole_rows` is False.
        HubError: if it has to be downloaded and cannot be.

    Source:
        Ansell et al. 2022 (LT-SFT), 2024 (SpIEL).
    """
    update = _read(path)
    if isinstance(base_model, PeftModel):
        raise AdapterError("import_sft takes a plain model, but this one has an adapter. Merge it, or load it again.")
    checkpoint = ModelCheckpoint(base_model)
    selections = {}
    for name, change in update.changes.items():
        if len(change.index):
            _require_fit(update, name, change.shape, int(change.index[-1]), base_model)
            group, units = _group(update, name, change, base_model, whole_rows)
            selections[group.name] = Selection(group, units)
    if not selections:
        raise AdapterError(f"{update.source!r} changes no single weight, so it is no ticket.")
    details = {"source": update.source, "written_by": update.method, "whole_rows": whole_rows}
    provenance, groups = Provenance("import_sft", details), [selection.group for selection in selections.values()]
    ticket = Ticket("update", "weights", selections, identify(checkpoint, parameters_of(groups)), provenance)
    whole = dict(update.whole) if with_abs else {}
    for name, value in whole.items():
        _require_fit(update, name, tuple(value.shape), None, base_model)
    return ticket, _adapter(ticket, update, whole, base_model)


def _read(path: str | os.PathLike[str]) -> SparseUpdate:
    source, local = os.fspath(path), Path(path)
    if local.is_file():
        return read_composable_sft(local, source)
    if not local.exists():
        file = download(source, FILE, missing_ok=True)
        if file is not None:
            return read_composable_sft(file, source)
        config = download(source, CONFIG)
        weights = download(source, WEIGHTS[0], revision=config.parent.name, missing_ok=True)
        return read_sft_adapter(config, weights or download(source, WEIGHTS[1], revision=config.parent.name), source)
    if (local / FILE).is_file():
        return read_composable_sft(local / FILE, source)
    weights = next((local / name for name in WEIGHTS if (local / name).is_file()), None)
    if (local / CONFIG).is_file() and weights is not None:
        return read_sft_adapter(local / CONFIG, weights, source)
    raise CheckpointError(
        f"{source!r} holds neither {FILE} (composable-sft) nor {CONFIG} with {' or '.join(WEIGHTS)} (the SFT fork of "
        "PEFT). Give the folder that one of them saved."
    )


def _require_fit(
    update: SparseUpdate, name: str, shape: tuple[int, ...] | None, last: int | None, base: nn.Module
) -> None:
    """Check that the model has this parameter, under this name and in this shape."""
    parameters = dict(base.named_parameters())
    if name not in parameters:
        every = dict(base.named_parameters(remove_duplicate=False))
        owner = next((own for own, p in parameters.items() if name in every and p is every[name]), None)
        if owner is not None:
            raise AdapterError(
                f"{update.source!r} changes {name!r}, which is tied to {owner!r} in this {type(base).__name__}. Load "
                "the model with tie_word_embeddings=False."
            )
        raise AdapterError(
            f"{update.source!r} changes {name!r}, which this {type(base).__name__} does not have; its names look like "
            f"{', '.join(map(repr, list(parameters)[:_SHOWN]))}. Load the model class that it was trained on, or leave "
            "a foreign head out (with_abs=False)."
        )
    here = tuple(parameters[name].shape)
    if (shape is not None and shape != here) or (last is not None and last >= math.prod(here)):
        there = f"it has shape {shape}" if shape is not None else f"positions go up to {last}"
        raise AdapterError(
            f"{name!r} has shape {here} in this {type(base).__name__}, but {there} in {update.source!r}. Load the base "
            "model that it was trained on."
        )


def _group(
    update: SparseUpdate, name: str, change: SparseChange, base: nn.Module, whole_rows: bool
) -> tuple[UnitGroup, np.ndarray]:
    """The units that a change selects: single weights, or whole rows of an embedding."""
    module = base.get_submodule(name.rpartition(".")[0])
    shape = tuple(base.get_parameter(name).shape)
    if not isinstance(module, nn.Embedding):
        return UnitGroup(name, (Slab(name, None),), math.prod(shape)), change.index
    rows = np.unique(change.index // shape[1])
    if not whole_rows:
        raise AdapterError(
            f"{update.source!r} changes {len(change.index)} single weights of {name!r} in {len(rows)} rows, and of an "
            "embedding only whole rows can be trained. import_sft(..., whole_rows=True) takes these rows whole: the "
            "model computes the same, and further training moves all their weights."
        )
    return UnitGroup(_token_group(module, base) or name, (Slab(name, 0),), shape[0]), rows


def _token_group(module: nn.Embedding, base: Any) -> str | None:
    """What granularity `token_rows` calls this matrix; None if it is no embedding of tokens."""
    if module is not base.get_input_embeddings():
        return None
    head = base.get_output_embeddings()
    return "tied" if head is not None and head.weight is module.weight else "input"


def _adapter(ticket: Ticket, update: SparseUpdate, whole: Mapping[str, Tensor], base: nn.Module) -> PeftModel:
    parts = chosen_parts(ticket)
    modules = _outermost({name.rpartition(".")[0] for name in whole})
    for module in modules:
        _require_apart(update, module, [part.parameter for part in parts], base)
    config = LotteryConfig(
        **position_options((part.parameter, part.dim, part.index) for part in parts),
        modules_to_save=modules or None,
        ticket=ticket.fingerprint,
        task_type=task_type(base),
    )
    model = get_peft_model(base, config)
    with torch.no_grad():
        for part in parts:
            name, _, leaf = part.parameter.rpartition(".")
            layer: PartLayer = model.get_submodule(f"{PEFT_PREFIX}{name}")
            kind = next(kind for kind in layer.kinds if (kind.parameter, kind.dim) == (leaf, part.dim))
            deltas = _deltas_at(part, update.changes[part.parameter], ticket.base.shapes[part.parameter])
            getattr(layer, kind.values)["default"].copy_(deltas)
        for name, value in whole.items():
            module = next(module for module in modules if name.startswith(f"{module}."))
            wrapper: ModulesToSaveWrapper = model.get_submodule(f"{PEFT_PREFIX}{module}")
            dense = value.to_dense() if value.is_sparse else value
            wrapper.modules_to_save["default"].get_parameter(name.removeprefix(f"{module}.")).copy_(dense)
    return model


def _outermost(modules: Iterable[str]) -> list[str]:
    """The modules that do not lie in another one of them."""
    found: list[str] = []
    for module in sorted(modules):
        if not any(module.startswith(f"{outer}.") for outer in found):
            found.append(module)
    return found


def _require_apart(update: SparseUpdate, module: str, parts: Sequence[str], base: nn.Module) -> None:
    """Check that a module can be trained whole: PEFT finds it by its name, and nothing else has to do with it."""
    inside = f"{module}."
    held = dict(base.named_parameters(remove_duplicate=False))
    mine = {id(parameter) for name, parameter in held.items() if name.startswith(inside)}
    shared = next((name for name, p in held.items() if id(p) in mine and not name.startswith(inside)), None)
    other = next(iter(namesakes(module, [name for name, _ in base.named_modules(remove_duplicate=False)])), None)
    if any(name.startswith(inside) for name in parts):
        reason = "also changes it in parts"
    elif shared is not None:
        reason = f"it shares parameters with {shared!r}"
    elif other is not None:
        reason = f"PEFT, which finds such modules by the end of their name, would take {other!r} for it"
    else:
        return
    raise AdapterError(
        f"{update.source!r} trained {module!r} whole, but {reason}. Leave whole tensors out: with_abs=False."
    )


def _deltas_at(part: ChosenPart, change: SparseChange, shape: tuple[int, ...]) -> Tensor:
    """[k, ...] deltas of a part; zero where the file changes nothing."""
    if part.dim is None:
        return change.delta[torch.from_numpy(np.searchsorted(change.index, part.index))]
    row, column = np.divmod(change.index, shape[1])
    deltas = torch.zeros(len(part.index), shape[1])
    deltas[torch.from_numpy(np.searchsorted(part.index, row)), torch.from_numpy(column)] = change.delta
    return deltas
