"""PEFT's SUPERTUNING: single weights of linear layers, positions in the file."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from ks_lottery.adapter.export.carrier import CARRIERS, Export, whole_modules, write_adapter
from ks_lottery.adapter.export.single_weights import SingleWeights, single_weights, sparse_refusal, vectors_of
from ks_lottery.adapter.parts import ENTRIES
from ks_lottery.adapter.tuned import PEFT_PREFIX

_LARGEST_INT32 = 2**31 - 1


@CARRIERS.register("supertuning")
class SupertuningCarrier:
    """Any parts of `nn.Linear` layers as single weights, and norms as whole modules.

    Loads with PEFT 0.21 or later. The type has one density for all layers, so each is filled up to that of the densest
    with zeros at positions of its own: 8 bytes per weight and 8 per filling. Further training with plain PEFT stays
    inside the ticket. PEFT rounds the values to the dtype of the base; where that would miss a tuned weight, its
    position stands again with what is left.
    """

    def rank(self, export: Export) -> int | None:
        """First for tickets of single weights; larger than other carriers for slices, and not tried for them."""
        return 1 if all(m.form == "vectors" or m.part(ENTRIES) is not None for m in export.tuned.modules) else None

    def refusal(self, export: Export) -> str | None:
        """See `Carrier`."""
        for module in export.tuned.modules:
            if math.prod(module.shape) > _LARGEST_INT32:
                return f"its positions are 32 bits wide, and {module.name!r} has {math.prod(module.shape)} weights"
        return sparse_refusal(export.tuned)

    def write(self, export: Export, folder: Path) -> None:
        """See `Carrier`."""
        weights = [weight.in_base_dtype() for weight in single_weights(export.tuned)]
        sparsity = _sparsity(weights)
        config = {
            **export.header,
            "peft_type": "SUPERTUNING",
            "sparsity": sparsity,
            "target_modules": [weight.module.name for weight in weights],
        }
        whole_config, tensors = whole_modules(export.tuned, vectors_of(export.tuned))
        for weight in weights:
            index, deltas = weight.padded(_count(weight, sparsity))
            prefix = f"{PEFT_PREFIX}{weight.module.name}.supertuning"
            tensors |= {f"{prefix}_indices": index.to(torch.int32), f"{prefix}_values": deltas.to(torch.float32)}
        write_adapter(folder, config | whole_config, tensors)


def _count(weight: SingleWeights, sparsity: float) -> int:
    """How many values PEFT gives a layer, computed as PEFT does."""
    return int(math.prod(weight.module.shape) * (1 - sparsity))


def _sparsity(weights: Sequence[SingleWeights]) -> float:
    """The largest value of the option with which every layer has room for its weights."""
    sparsity = 1 - max(len(weight.index) / math.prod(weight.module.shape) for weight in weights)
    while any(_count(weight, sparsity) < len(weight.index) for weight in weights):
        sparsity = max(0.0, sparsity - 2**-53)
    return sparsity
