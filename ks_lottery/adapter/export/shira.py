"""PEFT's SHIRA: single weights of linear layers, for PEFT versions before SUPERTUNING."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from ks_lottery.adapter.export.carrier import CARRIERS, Export, whole_modules, write_adapter
from ks_lottery.adapter.export.single_weights import SingleWeights, single_weights, sparse_refusal, vectors_of
from ks_lottery.adapter.tuned import PEFT_PREFIX


@CARRIERS.register("shira")
class ShiraCarrier:
    """Any parts of `nn.Linear` layers as single weights, and norms as whole modules; 12 bytes per weight.

    Loads with PEFT 0.17 or later, through PEFT. The adapter loading of transformers itself (`model.load_adapter`,
    `AutoModel.from_pretrained` of an adapter) does not see the positions of this type, and fails with a `KeyError`. The
    type gives a layer `r * (inputs + outputs)` weights; each is filled up with zeros at positions of its own.
    """

    def rank(self, export: Export) -> int | None:
        """Never: SUPERTUNING holds the same and loads everywhere."""
        return None

    def refusal(self, export: Export) -> str | None:
        """See `Carrier`."""
        reason = sparse_refusal(export.tuned)
        if reason is not None:
            return reason
        weights = single_weights(export.tuned)
        r = _r(weights)
        for weight in weights:
            if r * sum(weight.module.shape) > math.prod(weight.module.shape):
                return (
                    f"it gives every layer r * (inputs + outputs) weights with one r, which has to be {r}, and "
                    f"{weight.module.name!r} of shape {weight.module.shape} does not have so many"
                )
        return None

    def write(self, export: Export, folder: Path) -> None:
        """See `Carrier`."""
        weights = single_weights(export.tuned)
        r = _r(weights)
        config = {
            **export.header,
            "peft_type": "SHIRA",
            "r": r,
            "mask_type": "ticket",
            "target_modules": [weight.module.name for weight in weights],
        }
        whole_config, tensors = whole_modules(export.tuned, vectors_of(export.tuned))
        for weight in weights:
            index, deltas = weight.padded(r * sum(weight.module.shape))
            inputs = weight.module.shape[1]
            prefix = f"{PEFT_PREFIX}{weight.module.name}.shira"
            tensors[f"{prefix}_indices"] = torch.stack([index // inputs, index % inputs]).to(torch.int32)
            tensors[f"{prefix}_weight"] = deltas.to(torch.float32)
        write_adapter(folder, config | whole_config, tensors)


def _r(weights: Sequence[SingleWeights]) -> int:
    return max(-(-len(weight.index) // sum(weight.module.shape)) for weight in weights)
