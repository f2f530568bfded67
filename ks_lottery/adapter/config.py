"""The adapter's configuration, and the registration of the method with PEFT.

Importing this module teaches PEFT the type `KS_TICKET`; nothing else is needed for `get_peft_model`,
`PeftModel.from_pretrained`, `AutoPeftModelForCausalLM` and transformers' own adapter loading to know it.
"""

import os
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import register_peft_method

from ks_lottery.adapter.export.plain import write_plain_form
from ks_lottery.adapter.model import LotteryModel
from ks_lottery.adapter.peft_type import KS_TICKET
from ks_lottery.adapter.tuned import Tuned
from ks_lottery.errors import AdapterError


@dataclass
class LotteryConfig(PeftConfig):
    """Which modules have trainable rows, and how many.

    The file holds shapes only: the positions lie beside the values in `adapter_model.safetensors`. `attach_ticket`
    makes the configuration of a ticket; to train chosen rows without a ticket, give `positions`:
    `get_peft_model(model, LotteryConfig(positions={"model.embed_tokens": [11, 42]}, task_type="CAUSAL_LM"))`.

    Raises:
        AdapterError: if positions are not sorted, unique and non-negative, or there is no row at all.
    """

    rows: dict[str, int] = field(
        default_factory=dict, metadata={"help": "Module name to its number of trainable rows; follows from positions."}
    )
    tied_modules: dict[str, list[str]] = field(
        default_factory=dict,
        metadata={"help": "Module name to the other modules that share its matrix; read off the model."},
    )
    ticket: str | None = field(default=None, metadata={"help": "Fingerprint of the ticket that the rows come from."})
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Modules that are trained and saved whole, beside the rows."}
    )
    target_modules: list[str] | None = field(
        default=None, metadata={"help": "The modules in rows; read by PEFT and not an option."}
    )
    trainable_token_indices: dict[str, list[int]] | None = field(
        default_factory=dict,
        metadata={
            "help": "Always {}, and not an option: it tells PEFT that rows are trained, so that it does not save whole "
            "embeddings beside them."
        },
    )
    positions: dict[str, list[int]] | None = field(
        default=None, metadata={"help": "Module name to its sorted trainable rows; never written to the configuration."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = KS_TICKET
        # What `save_pretrained` writes for plain PEFT; there only while a model is being saved.
        self.tuned: Tuned | None = None
        for name, rows in (self.positions or {}).items():
            if not rows or rows[0] < 0 or any(row >= following for row, following in pairwise(rows)):
                raise AdapterError(
                    f"LotteryConfig(positions={{{name!r}: ...}}): {len(rows)} rows, which must be at least one, none "
                    "negative, sorted, and each there once."
                )
            self.rows[name] = len(rows)
        if not self.rows:
            raise AdapterError("LotteryConfig selects no row of any module. Use attach_ticket, or give positions.")
        self.target_modules = sorted(self.rows)

    def to_dict(self) -> dict[str, Any]:
        """What is written to `adapter_config.json`."""
        return {key: value for key, value in super().to_dict().items() if key != "positions"}

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Write `adapter_config.json`; when a model is being saved, also the form that plain PEFT loads.

        Both `PeftModel.save_pretrained` and `PreTrainedModel.save_pretrained` fetch the adapter's tensors and then call
        this method with the adapter's folder, which makes it the one public place that every way of saving, the
        Trainer's checkpoints included, goes through. The plain form lies in `plain/adapter`, two levels down, because
        the Trainer takes each folder one level down that holds adapter weights for a further adapter to resume.
        """
        super().save_pretrained(save_directory, **kwargs)
        tuned, self.tuned = self.tuned, None
        if tuned is not None:
            write_plain_form(tuned, self, Path(save_directory), kwargs.get("auto_mapping_dict"))


if KS_TICKET not in PEFT_TYPE_TO_TUNER_MAPPING:
    register_peft_method(name="ks_ticket", config_cls=LotteryConfig, model_cls=LotteryModel)
