"""A LoRA without any LoRA weights: PEFT's `trainable_token_indices`, positions per module, beside whole modules."""

from pathlib import Path

from ks_lottery.adapter.export.carrier import CARRIERS, Export, foreign_ties, write_adapter
from ks_lottery.adapter.tuned import PEFT_PREFIX


@CARRIERS.register("lora_tokens")
class LoraTokensCarrier:
    """Rows with different positions in the input embedding and in an untied output head, and `modules_to_save`.

    Loads with PEFT 0.15 or later. The rows are absolute, as in `trainable_tokens`.
    """

    def rank(self, export: Export) -> int | None:
        """Second."""
        return 1

    def refusal(self, export: Export) -> str | None:
        """See `Carrier`."""
        return foreign_ties(export.tuned)

    def write(self, export: Export, folder: Path) -> None:
        """See `Carrier`."""
        tuned = export.tuned
        config = {
            **export.header,
            "peft_type": "LORA",
            "r": 1,
            "lora_alpha": 1,
            "target_modules": "dummy-target-modules",
            "trainable_token_indices": {matrix.module: matrix.index.tolist() for matrix in tuned.matrices},
        }
        if tuned.module_names:
            config["modules_to_save"] = list(tuned.module_names)
        rows = {
            f"{PEFT_PREFIX}{matrix.module}.token_adapter.trainable_tokens_delta": matrix.values()
            for matrix in tuned.matrices
        }
        write_adapter(folder, config, {**rows, **tuned.whole_modules})
