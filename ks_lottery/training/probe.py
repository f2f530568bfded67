"""The probe: the dense fine-tuning whose shift is measured, run by a stock Trainer."""

import contextlib
import copy
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.checkpoints.writer import write_json
from ks_lottery.errors import DataError, OptionError
from ks_lottery.ticket.identity import identify
from ks_lottery.training.arguments import check_arguments, deciding_options, probe_arguments
from ks_lottery.training.callback import TicketCallback
from ks_lottery.training.causal_lm import require_causal_lm
from ks_lottery.training.examples import ResponseCollator, padding_id
from ks_lottery.training.probe_folders import write_whole_checkpoint
from ks_lottery.training.run_lock import RunLock
from ks_lottery.training.scope import needs_autocast, only_trainable, scope_parameters

_RECORD = "probe.json"


def probe(
    model: Any,
    train_dataset: Any,
    output_dir: str | os.PathLike[str],
    scope: str = "embedding",
    arguments: TrainingArguments | Mapping[str, Any] | None = None,
    processing_class: Any = None,
    data_collator: Any = None,
    callbacks: Sequence[TrainerCallback] = (),
    resume: bool = True,
) -> Path:
    """Fine-tune a scope of a model densely and leave both ends on disk.

    `output_dir` then holds two whole checkpoints to compare, `before` and `after`. The trained weights are float32 in
    both, whatever the base model's dtype: float32 is what the optimizer stepped, and raising the base to it is exact.
    All other weights keep their dtype and are one set of files with two names. (`from_pretrained` rounds `after` to
    the base's dtype unless told `dtype=torch.float32`.)

        after = probe(model, examples, "runs/probe", arguments={"learning_rate": 1e-3}, processing_class=tokenizer)
        ticket = find_ticket(before="runs/probe/before", after=after)

    The model is trained in place and ends as `after`, with its dtypes and `requires_grad` flags as they were.

    Args:
        model: a causal language model with its pretrained weights, also when a probe is resumed.
        train_dataset: tokenised examples; `response_examples(...)`, or anything a Trainer takes.
        output_dir: of this probe alone.
        scope: "embedding" (where the model ties its embeddings: the one matrix, whose every row gets gradient) or
            "full".
        arguments: `TrainingArguments` as they are, or options that win over the defaults of `probe_arguments`; the
            Trainer's checkpoints then go to `output_dir/trainer`.
        processing_class: the tokenizer; saved with the checkpoints, and the source of the padding id.
        data_collator: `ResponseCollator` if None.
        callbacks: for the Trainer; a `TicketCallback` among them is attached, so that it logs as the Trainer does.
        resume: go on from the newest whole Trainer checkpoint; if `after` exists, load it into the model and return at
            once. If False, an output folder with an earlier probe is an error.

    Returns:
        the folder `output_dir/after`.

    Raises:
        OptionError: if model, scope or arguments cannot be used, or the folder holds another probe, is in use by
            another process, or cannot be written.
        DataError: if the data set is empty.
        UnknownNameError, UnitError: if the architecture is unknown.

    Cost:
        Disk: one model, twice the trained weights in float32, and the Trainer's own checkpoints.

    Source:
        Yuan et al. 2025 (KS-Lottery), stage 1 (Embed Tuning).
    """
    _require_plain_model(model)
    size = len(train_dataset) if hasattr(train_dataset, "__len__") else None
    if size == 0:
        raise DataError("The training data set is empty. Check the split it was made from.")
    folder = Path(output_dir)
    trained = scope_parameters(model, scope)
    settings = _settings(folder, arguments, needs_autocast(model, trained))
    base = identify(open_checkpoint(model), trained)
    record = {"scope": scope, "base": base.digest, "examples": size, **deciding_options(settings)}
    if _finished(folder, record, settings, resume):
        _load(trained, folder / "after")
        return folder / "after"
    config = _configuration(model)
    with only_trainable(model, trained):
        trainer = _trainer(model, train_dataset, settings, processing_class, data_collator, callbacks)
        with _alone_in(folder, trainer):
            with _one_process_writes(trainer) as writes:
                if writes and not (folder / "before").is_dir():
                    write_json(folder / _RECORD, record)
                    write_whole_checkpoint(folder / "before", model, config, list(trained), processing_class)
            trainer.train(resume_from_checkpoint=newest_checkpoint(settings.output_dir))
            with _one_process_writes(trainer) as writes:
                if writes:
                    write_whole_checkpoint(
                        folder / "after", model, config, list(trained), processing_class, frozen_from=folder / "before"
                    )
    return folder / "after"


@contextlib.contextmanager
def _alone_in(folder: Path, trainer: Trainer) -> Iterator[None]:
    """Inside the block the first process of this run holds the folder; another run there is an error that names it."""
    lock = RunLock(folder)
    if trainer.is_world_process_zero():
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def newest_checkpoint(folder: str | os.PathLike[str]) -> str | None:
    """The Trainer checkpoint with the most steps that was written to its end; None if there is none.

    A Trainer writes the state file last: a checkpoint without a readable one was cut off.
    """
    whole = {}
    for path in Path(folder).glob("checkpoint-*"):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
            whole[int(path.name.removeprefix("checkpoint-"))] = str(path)
        except (OSError, ValueError):
            continue
    return whole[max(whole)] if whole else None


def _settings(
    folder: Path, arguments: TrainingArguments | Mapping[str, Any] | None, autocast: bool
) -> TrainingArguments:
    """Training arguments that are fit for a probe."""
    if isinstance(arguments, TrainingArguments):
        settings = arguments
    else:
        settings = probe_arguments(folder / "trainer", **{"bf16": autocast, **(arguments or {})})
    check_arguments(settings, autocast)
    return settings


@contextlib.contextmanager
def _one_process_writes(trainer: Trainer) -> Iterator[bool]:
    """Yield whether this process is the one that writes; all processes meet before and after."""
    trainer.accelerator.wait_for_everyone()
    yield trainer.is_world_process_zero()
    trainer.accelerator.wait_for_everyone()


def _finished(folder: Path, record: Mapping[str, Any], arguments: TrainingArguments, resume: bool) -> bool:
    """Whether `after` is there; refuses a folder that belongs to another probe."""
    if not resume:
        found = [path for path in (folder / _RECORD, folder / "before", folder / "after") if path.exists()]
        if found or newest_checkpoint(arguments.output_dir):
            raise OptionError(
                f"{str(folder)!r} already holds a probe ({found[0].name if found else arguments.output_dir}). Give "
                "another output_dir, delete it, or go on with resume=True."
            )
        return False
    if (folder / _RECORD).is_file():
        earlier = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        same = json.loads(json.dumps(record))
        differing = sorted(key for key in same if earlier.get(key) != same[key])
        if differing:
            key = differing[0]
            raise OptionError(
                f"{str(folder)!r} holds a probe with other settings: {', '.join(differing)} ({key} was "
                f"{earlier.get(key)!r} and is now {same[key]!r}). Resume with the same settings and the pretrained "
                "base model, or give another output_dir."
            )
    return (folder / "after").is_dir()


def _load(trained: Mapping[str, torch.nn.Parameter], folder: Path) -> None:
    """Give a model the trained weights of a finished probe."""
    checkpoint = open_checkpoint(folder)
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(checkpoint.rows(name))
            checkpoint.release(name)


def _trainer(
    model: Any, train_dataset: Any, arguments: Any, tokenizer: Any, collator: Any, callbacks: Sequence[Any]
) -> Trainer:
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=train_dataset,
        data_collator=collator or ResponseCollator(_padding_id(model, tokenizer)),
        processing_class=tokenizer,
        callbacks=[callback for callback in callbacks if not isinstance(callback, TicketCallback)],
    )
    for callback in callbacks:
        if isinstance(callback, TicketCallback):
            callback.attach(trainer)
    return trainer


def _padding_id(model: Any, tokenizer: Any) -> int:
    if tokenizer is not None:
        return padding_id(tokenizer)
    if model.config.pad_token_id is not None:
        return int(model.config.pad_token_id)
    raise OptionError("No padding id is known: pass the tokenizer as processing_class, or a data_collator of your own.")


def _configuration(model: Any) -> Any:
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    return config


def _require_plain_model(model: Any) -> None:
    if hasattr(model, "peft_config"):
        raise OptionError(
            "The probe trains a plain model, but this one carries a PEFT adapter. Merge it "
            "(model.merge_and_unload()), or probe the base model."
        )
    require_causal_lm(model, "The probe")
    if getattr(model, "is_quantized", False):
        raise OptionError(
            "The probe compares weights before and after, but this model is quantised. Load it without a "
            "quantization_config."
        )
