"""PEFT's TRAINABLE_TOKENS: absolute rows, one list of positions for all modules."""

from pathlib import Path

import torch

from ks_lottery.adapter.export.carrier import CARRIERS, Export, name_refusal, token_refusal, write_adapter
from ks_lottery.adapter.tuned import PEFT_PREFIX


@CARRIERS.register("trainable_tokens")
class TrainableTokensCarrier:
    """Rows of the input embedding, of a tied matrix, or of both ends with equal positions.

    Loads with PEFT 0.15 or later. The rows are absolute, so weight decay in further training with plain PEFT would pull
    them to zero instead of to the pretrained rows.
    """

    def rank(self, export: Export) -> int | None:
        """First; after `lora` where matrices are tied, since PEFT then warns of ties while it loads this type."""
        return 3 if any(module.tied_modules for module in export.tuned.modules) else 0

    def refusal(self, export: Export) -> str | None:
        """See `Carrier`."""
        if export.tuned.module_names:
            return f"it cannot hold the whole modules {', '.join(export.tuned.module_names)}"
        first, *others = export.tuned.modules
        for module in (first, *others):
            if not module.rows_alone:
                return f"it holds rows of embeddings and output heads, but parts of {module.name!r} are tuned"
            reason = token_refusal(module)
            if reason is not None:
                return reason
        for other in others:
            here, there = first.parts[0].index, other.parts[0].index
            if not torch.equal(here, there):
                return (
                    f"it has one list of rows for all modules, but {first.name!r} has {len(here)} rows and "
                    f"{other.name!r} has {len(there)}, not all the same"
                )
        return name_refusal(export.tuned.modules)

    def write(self, export: Export, folder: Path) -> None:
        """See `Carrier`."""
        modules = export.tuned.modules
        config = {
            **export.header,
            "peft_type": "TRAINABLE_TOKENS",
            "token_indices": modules[0].parts[0].index.tolist(),
            "target_modules": [module.name for module in modules],
        }
        tensors = {f"{PEFT_PREFIX}{module.name}.trainable_tokens_delta": module.parts[0].values() for module in modules}
        write_adapter(folder, config, tensors)
