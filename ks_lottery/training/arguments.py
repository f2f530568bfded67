"""Training arguments of the probe: defaults that are fit for measuring a shift, and checks of what would spoil it."""

import difflib
import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from transformers import TrainingArguments

from ks_lottery.errors import OptionError

PROBE_DEFAULTS: dict[str, Any] = {
    "learning_rate": 2e-5,
    "num_train_epochs": 3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.03,
    "adam_beta2": 0.95,
    "weight_decay": 0.0,
    "save_total_limit": 1,
    "logging_steps": 10,
    "report_to": "none",
}
_DECIDES_THE_RESULT = (
    "learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps",
    "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "optim", "optim_args", "adam_beta1", "adam_beta2",
    "adam_epsilon", "max_grad_norm", "label_smoothing_factor", "seed", "data_seed", "bf16", "fp16",
)  # fmt: skip


def probe_arguments(output_dir: str | os.PathLike[str], **options: Any) -> TrainingArguments:
    """Training arguments with the probe's defaults.

    Adam's beta2 is 0.95: with 0.999 a row that was seen once keeps moving long after and heads the ticket. Weight decay
    is 0: it would move every row, used or not.

    Args:
        output_dir: folder of the Trainer's checkpoints.
        options: of `transformers.TrainingArguments`; they win over the defaults.

    Raises:
        OptionError: if an option does not exist.

    Source:
        Yuan et al. 2025 (KS-Lottery): learning rate 2e-5, 3 epochs; 0.03 and cosine as in its predecessor's code.
    """
    known = {field.name for field in fields(TrainingArguments) if field.init}
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise OptionError(f"transformers.TrainingArguments has no option {name!r}.{hint}")
    defaults = {**PROBE_DEFAULTS, "use_cpu": not torch.accelerator.is_available()}
    return TrainingArguments(output_dir=os.fspath(output_dir), **{**defaults, **options})


def check_arguments(arguments: TrainingArguments, autocast: bool) -> None:
    """Refuse arguments under which the shift would not be what it seems.

    Args:
        arguments: of the probe.
        autocast: whether the model has frozen weights narrower than float32.

    Raises:
        OptionError: for weight decay, sharded training, or a narrow model without mixed precision.
    """
    if arguments.weight_decay:
        raise OptionError(
            f"weight_decay={arguments.weight_decay} would move every trained row at every step, whether a text used it "
            "or not, and the finder would take that for learning. Set weight_decay=0."
        )
    if arguments.fsdp or arguments.deepspeed:
        raise OptionError(
            "The probe saves whole weights from each process's model and does not run sharded (FSDP, DeepSpeed). "
            "Run it with plain data parallelism, or train with your own Trainer and give find_ticket both checkpoints."
        )
    if autocast and not (arguments.bf16 or arguments.fp16):
        raise OptionError(
            "The trained weights are kept in float32, but the model's other weights are narrower, and a product of the "
            "two needs mixed precision. Set bf16=True in the arguments, or load the model with dtype=torch.float32."
        )


def deciding_options(arguments: TrainingArguments) -> dict[str, Any]:
    """The options that decide the trained weights, as JSON values."""
    values: Mapping[str, Any] = arguments.to_dict()
    return {"processes": arguments.world_size, **{name: values.get(name) for name in _DECIDES_THE_RESULT}}
