"""The folders `before` and `after` of a probe: two whole checkpoints that share the weights that did not train."""

import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ks_lottery.checkpoints.writer import atomic_folder, write_json

_SHARD_BYTES = 2 * 2**30
_INDEX = "model.safetensors.index.json"


def write_whole_checkpoint(
    folder: Path,
    model: Any,
    config: Any,
    trained: Collection[str],
    processing_class: Any = None,
    frozen_from: Path | None = None,
) -> None:
    """Write a checkpoint that `from_pretrained` and `open_checkpoint` read.

    Args:
        folder: replaced as a whole, atomically.
        model: its weights, each in its present dtype.
        config: the configuration to save beside them.
        trained: names of the weights that get files of their own, `trained-*.safetensors`.
        processing_class: tokenizer to save beside them, or None.
        frozen_from: folder of an earlier call; its `frozen-*.safetensors` are linked instead of written again.
    """
    weights = _weights(model)
    with atomic_folder(folder) as temporary:
        frozen = {name: tensor for name, tensor in weights.items() if name not in trained}
        if frozen_from is None:
            weight_map = _write_shards(temporary, "frozen", frozen)
        else:
            weight_map = _link_shards(temporary, frozen_from, frozen)
        weight_map |= _write_shards(temporary, "trained", {name: weights[name] for name in trained})
        total = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
        write_json(temporary / _INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
        config.save_pretrained(temporary)
        if getattr(model, "generation_config", None) is not None:
            model.generation_config.save_pretrained(temporary)
        if processing_class is not None:
            processing_class.save_pretrained(temporary)


def _weights(model: Any) -> dict[str, torch.Tensor]:
    """The state dict with every tied tensor once, under its first name."""
    seen = set()
    weights = {}
    for name, tensor in model.state_dict().items():
        place = (tensor.data_ptr(), tensor.shape)
        if tensor.numel() == 0 or place not in seen:
            seen.add(place)
            weights[name] = tensor
    return weights


def _write_shards(folder: Path, stem: str, weights: Mapping[str, torch.Tensor]) -> dict[str, str]:
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(_shards(weights), start=1):
        file = f"{stem}-{number:05d}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in shard.items()}, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    return weight_map


def _shards(weights: Mapping[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
    shard: dict[str, torch.Tensor] = {}
    size = 0
    for name, tensor in weights.items():
        if shard and size + tensor.nbytes > _SHARD_BYTES:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += tensor.nbytes
    if shard:
        yield shard


def _link_shards(folder: Path, source: Path, names: Collection[str]) -> dict[str, str]:
    index = json.loads((source / _INDEX).read_text(encoding="utf-8"))["weight_map"]
    weight_map = {name: index[name] for name in names}
    for file in sorted(set(weight_map.values())):
        try:
            os.link(source / file, folder / file)
        except OSError:  # a file system without hard links
            shutil.copyfile(source / file, folder / file)
    return weight_map
