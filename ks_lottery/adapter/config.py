"""The adapter's configuration, and the registration of the method with PEFT.

Importing this module teaches PEFT the type `KS_TICKET`; nothing else is needed for `get_peft_model`,
`PeftModel.from_pretrained`, `AutoPeftModelForCausalLM` and transformers' own adapter loading to know it.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import register_peft_method

from ks_lottery.adapter.export.plain import PLAIN_FOLDER, write_plain_form
from ks_lottery.adapter.model import LotteryModel
from ks_lottery.adapter.parts import BIAS, COLUMNS, ENTRIES, ROWS, PartKind
from ks_lottery.adapter.peft_type import KS_TICKET
from ks_lottery.adapter.saved import read_config_file, require_fields, require_whole_weights
from ks_lottery.adapter.tuned import Tuned
from ks_lottery.errors import AdapterError

Positions = Mapping[str, Sequence[int] | np.ndarray]
Part = tuple[int, Sequence[int] | np.ndarray | None]
"""How many trainable positions, and which ones; None where they follow from a file."""

_NEVER_WRITTEN = ("positions", "column_positions", "entry_positions")


@dataclass
class LotteryConfig(PeftConfig):
    """Which modules have trainable rows, columns and single values, and how many.

    The file holds shapes only: the positions lie beside the values in `adapter_model.safetensors`. `attach_ticket`
    makes the configuration of a ticket; to train chosen positions without a ticket, give them:

        LotteryConfig(
            positions={"model.embed_tokens": [11, 42]},
            column_positions={"model.layers.0.mlp.down_proj": [7]},
            entry_positions={"model.layers.0.mlp.up_proj.weight": [0, 4095], "model.norm.weight": range(2048)},
            task_type="CAUSAL_LM",
        )

    Rows and columns are those of the stored matrix: rows of `nn.Linear` are outputs, rows of GPT-2's `Conv1D` inputs.

    Raises:
        AdapterError: if positions are not sorted, unique and non-negative, a count is no whole number of 1 or more,
            another part is of another type, or nothing at all is selected.
    """

    rows: dict[str, int] = field(
        default_factory=dict, metadata={"help": "Module name to its number of trainable rows; follows from positions."}
    )
    columns: dict[str, int] = field(
        default_factory=dict,
        metadata={"help": "Module name to its number of trainable columns; follows from column_positions."},
    )
    entries: dict[str, int] = field(
        default_factory=dict,
        metadata={"help": "Parameter name to its number of trainable single values; follows from entry_positions."},
    )
    tied_modules: dict[str, list[str]] = field(
        default_factory=dict,
        metadata={"help": "Module name to the other modules that share its matrix; read off the model."},
    )
    ticket: str | None = field(default=None, metadata={"help": "Fingerprint of the ticket that the parts come from."})
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Modules that are trained and saved whole, beside the rows."}
    )
    target_modules: list[str] | None = field(
        default=None, metadata={"help": "The modules with parts; read by PEFT and not an option."}
    )
    trainable_token_indices: dict[str, list[int]] | None = field(
        default_factory=dict,
        metadata={
            "help": "Always {}, and not an option: it tells PEFT that rows are trained, so that it does not save whole "
            "embeddings beside them."
        },
    )
    positions: Positions | None = field(
        default=None, compare=False, repr=False,
        metadata={"help": "Module name to its sorted trainable rows; never written to the configuration."},
    )  # fmt: skip
    column_positions: Positions | None = field(
        default=None, compare=False, repr=False,
        metadata={"help": "Module name to its sorted trainable columns; never written to the configuration."},
    )  # fmt: skip
    entry_positions: Positions | None = field(
        default=None, compare=False, repr=False,
        metadata={
            "help": "Parameter name to sorted places in the flattened parameter; never written to the configuration."
        },
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = KS_TICKET
        # What `save_pretrained` writes for plain PEFT, there only while a model is being saved; or that there is no
        # such form, so that it removes an older one.
        self.tuned: Tuned | None = None
        self.has_no_plain_form = False
        require_fields(self)
        for option, counts, noun in (
            ("positions", self.rows, "rows"),
            ("column_positions", self.columns, "columns"),
            ("entry_positions", self.entries, "entries"),
        ):
            for name, given in (getattr(self, option) or {}).items():
                counts[name] = _checked_count(option, name, np.asarray(given), noun)
        if not self.parts:
            raise AdapterError("LotteryConfig selects no row of any module. Use attach_ticket, or give positions.")
        self.target_modules = sorted(self.parts)

    @cached_property
    def parts(self) -> dict[str, dict[PartKind, Part]]:
        """What is trainable, by module and kind, in the order rows, columns, entries."""
        found: dict[str, dict[PartKind, Part]] = {}
        for counts, positions, kind in (
            (self.rows, self.positions, ROWS),
            (self.columns, self.column_positions, COLUMNS),
        ):
            for module, count in counts.items():
                found.setdefault(module, {})[kind] = count, (positions or {}).get(module)
        for parameter, count in self.entries.items():
            module, _, leaf = parameter.rpartition(".")
            if leaf not in ("weight", "bias") or not module:
                raise AdapterError(
                    f"LotteryConfig selects single values of {parameter!r}; they can be trained of parameters called "
                    "'weight' or 'bias' of a module. Leave it out of the ticket."
                )
            kind = ENTRIES if leaf == "weight" else BIAS
            found.setdefault(module, {})[kind] = count, (self.entry_positions or {}).get(parameter)
        return found

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str, subfolder: str | None = None, **kwargs: Any
    ) -> "LotteryConfig":
        """Read `adapter_config.json` of a folder or Hub id, and look whether the weights beside it are whole.

        Raises:
            AdapterError: if either is damaged, or the configuration says something that `save_pretrained` never writes.
        """
        require_whole_weights(Path(pretrained_model_name_or_path) / (subfolder or ""))
        return super().from_pretrained(pretrained_model_name_or_path, subfolder, **kwargs)

    @classmethod
    def from_json_file(cls, path_json_file: str, **kwargs: Any) -> dict[str, Any]:
        """The values in a configuration file.

        Raises:
            AdapterError: if it is no JSON object, ambiguous, or holds positions.
        """
        return read_config_file(Path(path_json_file), _NEVER_WRITTEN)

    def to_dict(self) -> dict[str, Any]:
        """What is written to `adapter_config.json`."""
        return {key: value for key, value in super().to_dict().items() if key not in _NEVER_WRITTEN}

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
        elif self.has_no_plain_form:
            shutil.rmtree(Path(save_directory) / PLAIN_FOLDER, ignore_errors=True)


def _checked_count(option: str, name: str, positions: np.ndarray, noun: str) -> int:
    if not len(positions) or positions[0] < 0 or not (positions[:-1] < positions[1:]).all():
        raise AdapterError(
            f"LotteryConfig({option}={{{name!r}: ...}}): {len(positions)} {noun}, which must be at least one, none "
            "negative, sorted, and each there once."
        )
    return len(positions)


if KS_TICKET not in PEFT_TYPE_TO_TUNER_MAPPING:
    register_peft_method(name="ks_ticket", config_cls=LotteryConfig, model_cls=LotteryModel)
