"""Token rows as plain LoRA weights, for servers that know LoRA and reject PEFT's token layers."""

from pathlib import Path

import torch

from ks_lottery.adapter.export.carrier import CARRIERS, Export, name_refusal, write_adapter
from ks_lottery.adapter.export.lora import factor_tensors
from ks_lottery.adapter.export.low_rank import rank_of
from ks_lottery.adapter.parts import BIAS
from ks_lottery.adapter.tuned import PEFT_PREFIX, TunedModule


@CARRIERS.register("lora_embedding")
class LoraEmbeddingCarrier:
    """One-hot LoRA weights and nothing else: no token layers, no whole modules, no biases.

    A matrix of V rows of d values with k tuned ones takes k * (V + d) numbers instead of k * d.
    """

    def rank(self, export: Export) -> int | None:
        """Never: it is for chosen servers."""
        return None

    def refusal(self, export: Export) -> str | None:
        """See `Carrier`."""
        if export.tuned.module_names:
            return f"it cannot hold the whole modules {', '.join(export.tuned.module_names)}"
        for module in export.tuned.modules:
            if module.tied_modules:
                return (
                    f"{module.name!r} shares its matrix with {', '.join(module.tied_modules)}, and PEFT would merge "
                    "LoRA weights of both ends into the one matrix twice"
                )
            if module.form == "vectors" or module.part(BIAS) is not None:
                return f"LoRA weights hold no vectors, but values of a vector of {module.name!r} are tuned"
        return name_refusal(export.tuned.modules)

    def write(self, export: Export, folder: Path) -> None:
        """See `Carrier`."""
        modules = export.tuned.modules
        ranks = {module.name: rank_of(module) for module in modules}
        config = {
            **export.header,
            "peft_type": "LORA",
            "r": 1,
            "lora_alpha": 1,
            "target_modules": [module.name for module in modules],
            "rank_pattern": ranks,
            "alpha_pattern": ranks,
            "fan_in_fan_out": any(module.form == "conv1d" for module in modules),
        }
        tensors: dict[str, torch.Tensor] = {}
        for module in modules:
            tensors |= _embedding(module) if module.form == "embedding" else factor_tensors(module, with_bias=False)
        write_adapter(folder, config, tensors)


def _embedding(module: TunedModule) -> dict[str, torch.Tensor]:
    (rows,) = module.parts
    picks = torch.zeros(len(rows.index), module.shape[0])
    picks[torch.arange(len(rows.index)), rows.index.cpu()] = 1.0
    prefix = f"{PEFT_PREFIX}{module.name}.lora_embedding"
    return {f"{prefix}_A": picks, f"{prefix}_B": rows.deltas().T}
