"""PEFT's TRAINABLE_TOKENS: absolute rows, one list of positions for all modules."""

from pathlib import Path

import torch

from ks_lottery.adapter.export.carrier import CARRIERS, Export, foreign_ties, write_adapter
from ks_lottery.adapter.tuned import PEFT_PREFIX


@CARRIERS.register("trainable_tokens")
class TrainableTokensCarrier:
    """Rows of the input embedding, of a tied matrix, or of both ends with equal positions.

    Loads with PEFT 0.15 or later. The rows are absolute, so weight decay in further training with plain PEFT would pull
    them to zero instead of to the pretrained rows.
    """

    def rank(self, export: Export) -> int | None:
        """First; last where matrices are tied, since PEFT then warns of ties while it loads this type."""
        return 2 if any(matrix.tied_modules for matrix in export.tuned.matrices) else 0

    def refusal(self, export: Export) -> str | None:
        """See `Carrier`."""
        if export.tuned.module_names:
            return f"it cannot hold the whole modules {', '.join(export.tuned.module_names)}"
        first, *others = export.tuned.matrices
        for other in others:
            if not torch.equal(first.index, other.index):
                return (
                    f"it has one list of rows for all modules, but {first.module!r} has {len(first.index)} rows and "
                    f"{other.module!r} has {len(other.index)}, not all the same"
                )
        return foreign_ties(export.tuned)

    def write(self, export: Export, folder: Path) -> None:
        """See `Carrier`."""
        matrices = export.tuned.matrices
        config = {
            **export.header,
            "peft_type": "TRAINABLE_TOKENS",
            "token_indices": matrices[0].index.tolist(),
            "target_modules": [matrix.module for matrix in matrices],
        }
        tensors = {f"{PEFT_PREFIX}{matrix.module}.trainable_tokens_delta": matrix.values() for matrix in matrices}
        write_adapter(folder, config, tensors)
