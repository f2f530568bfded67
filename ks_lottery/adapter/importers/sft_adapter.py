"""Adapters of the SFT fork of PEFT (SpIEL): `adapter_config.json` of type SFT, and positions and values per module.

The tensors of a linear layer are `base_model.model.MODULE.sft_delta.indices`, positions in its flattened matrix with
the last dimension fastest, and `.sft_delta.values`; whole modules stand under their own names.

Source:
    Ansell et al. 2024, Scaling Sparse Fine-Tuning to Large Language Models; the format was read off AlanAnsell/peft,
    and is written from scratch here.
"""

import reprlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from ks_lottery.adapter.importers.composable_sft import load_tensors
from ks_lottery.adapter.importers.sparse_update import SparseUpdate, sparse_change
from ks_lottery.adapter.tuned import PEFT_PREFIX
from ks_lottery.checkpoints.safetensors_file import SafetensorsFile
from ks_lottery.checkpoints.strict_json import strict_json_file
from ks_lottery.errors import CheckpointError

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_INDICES, _VALUES = ".sft_delta.indices", ".sft_delta.values"


def read_sft_adapter(config: Path, weights: Path, source: str) -> SparseUpdate:
    """Read an adapter of the SFT fork.

    Args:
        config: its `adapter_config.json`.
        weights: its `adapter_model.safetensors` or `adapter_model.bin`.
        source: what to call it in messages.

    Raises:
        CheckpointError: if it is of another type, or positions and values do not belong together.
    """
    try:
        header = strict_json_file(config)
    except ValueError as error:
        raise CheckpointError(f"{CONFIG} of {source!r} cannot be read ({error}). Save the adapter again.") from error
    kind = header.get("peft_type") if isinstance(header, dict) else None
    if kind != "SFT":
        named = kind[:40] if isinstance(kind, str) else reprlib.repr(kind)
        raise CheckpointError(
            f"{source!r} holds an adapter of type {named}, and import_sft reads SFT, of the fork AlanAnsell/peft. Load "
            "it with PEFT."
        )
    tensors = _tensors(weights, source)
    changes = {}
    for name, index in tensors.items():
        if name.endswith(_INDICES):
            module = name.removesuffix(_INDICES)
            values = tensors.get(module + _VALUES)
            if values is None:
                raise CheckpointError(f"{source!r} has {name!r} without {module + _VALUES!r}; it is damaged.")
            parameter = f"{module.removeprefix(PEFT_PREFIX)}.weight"
            changes[parameter] = sparse_change(source, parameter, _positions(index), values)
    whole = {
        name.removeprefix(PEFT_PREFIX): value
        for name, value in tensors.items()
        if not name.endswith((_INDICES, _VALUES))
    }
    return SparseUpdate(source, "AlanAnsell/peft SFT", changes, whole)


def _positions(index: Tensor) -> np.ndarray:
    """As numpy has them; of a dtype that it lacks as floats, which are no positions."""
    return (index.float() if index.is_floating_point() else index).numpy()


def _tensors(weights: Path, source: str) -> Mapping[str, Tensor]:
    if weights.suffix == ".safetensors":
        file = SafetensorsFile(weights)
        return {name: file.rows(name) for name in file.entries}
    tensors = load_tensors(weights, source)
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise CheckpointError(f"{source!r} holds no dictionary of tensors; it is damaged.")
    return tensors
