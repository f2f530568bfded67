"""Tuning in a recipe: the Trainer's arguments, a probe, an adapter, and the best of several learning rates."""

import dataclasses
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from method import Method, saved_size, slug, was_begun
from stages import Stages, fingerprint, processes
from transformers import Trainer, TrainerCallback, TrainingArguments

from ks_lottery.checkpoints.writer import write_json
from ks_lottery.errors import OptionError
from ks_lottery.training.arguments import probe_arguments
from ks_lottery.training.cost import measure
from ks_lottery.training.probe import newest_checkpoint, probe

_TENSORBOARD = "TENSORBOARD_LOGGING_DIR"  # where transformers' callback for TensorBoard looks


class BatchOptions(Protocol):
    """What the options of every recipe say about its optimizer steps."""

    batch_size: int
    micro_batch_size: int | None
    adam_beta2: float
    checkpoint_steps: int
    seed: int


def trainer_arguments(
    folder: Path, rate: float, epochs: float, options: BatchOptions, **more: Any
) -> TrainingArguments:
    """Arguments under which every number of processes takes the same steps.

    Args:
        folder: of the Trainer's checkpoints.
        rate: learning rate.
        epochs: passes over the training examples.
        options: of the recipe.
        more: further options of `transformers.TrainingArguments`.

    Raises:
        OptionError: if the batch cannot be shared evenly.
    """
    state, total = processes(), options.batch_size
    micro = options.micro_batch_size or max(1, total // state.num_processes)
    if total % (micro * state.num_processes):
        raise OptionError(
            f"--batch_size {total} is no multiple of {state.num_processes} processes times micro_batch_size {micro}. "
            "Choose one that is, so that every number of processes takes the same steps."
        )
    return probe_arguments(
        folder,
        learning_rate=rate,
        num_train_epochs=epochs,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=total // (micro * state.num_processes),
        adam_beta2=options.adam_beta2,
        use_cpu=state.device.type == "cpu",
        logging_strategy="epoch",
        save_strategy="steps",
        save_steps=options.checkpoint_steps,
        seed=options.seed,
        **more,
    )


@contextmanager
def logs_in(folder: Path) -> Iterator[None]:
    """Inside the block, Trainers that log to TensorBoard do so in a folder that stays when their own is gone."""
    earlier = os.environ.get(_TENSORBOARD)
    os.environ[_TENSORBOARD] = str(folder)
    try:
        yield
    finally:
        del os.environ[_TENSORBOARD]
        if earlier is not None:
            os.environ[_TENSORBOARD] = earlier


def steps_of(examples: int, epochs: float, options: BatchOptions) -> int:
    """Optimizer steps of a training."""
    return math.ceil(math.ceil(examples / options.batch_size) * epochs)


def train_probe(
    model: Any,
    examples: Any,
    folder: Path,
    scope: str,
    arguments: TrainingArguments,
    tokenizer: Any,
    collator: Any = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> None:
    """Tune a scope densely in `folder/probe`, going on from what a killed attempt left; arguments as of `probe`."""
    state = processes()
    if state.is_main_process and not was_begun(folder):
        shutil.rmtree(folder / "probe", ignore_errors=True)  # its record would refuse another micro_batch_size
    state.wait_for_everyone()
    probe(model, examples, folder / "probe", scope, arguments, tokenizer, collator, callbacks)


def train_adapter(model: Any, examples: Any, folder: Path, arguments: TrainingArguments, collator: Any) -> None:
    """Train what is trainable of a PEFT model and save it in `folder/adapter`, going on from the newest checkpoint."""
    trainer = Trainer(model=model, args=arguments, train_dataset=examples, data_collator=collator)
    trainer.train(resume_from_checkpoint=newest_checkpoint(arguments.output_dir))
    state = processes()
    if state.is_main_process:
        model.save_pretrained(folder / "adapter")
    state.wait_for_everyone()


def best_rate(
    stages: Stages,
    name: str,
    rates: Sequence[float],
    inputs: Mapping[str, Any],
    train: Callable[[Path, float], None],
    load: Callable[[Path], Any],
    dev_score: Callable[[Any], float],
    metric: str,
    steps: Callable[[], int],
) -> Method:
    """Train with each learning rate, score each on the development set, take the best; each is a stage.

    Args:
        stages: of the run.
        name: row of the score table.
        rates: learning rates to try; on equal scores the earlier one wins.
        inputs: JSON values that decide the result, beside the rate.
        train: folder and rate to a finished training in the folder.
        load: folder of a finished training to its model.
        dev_score: model to its score on the development set.
        metric: what the score is called ("BLEU").
        steps: optimizer steps of one training; asked only if one is made.
    """
    key, state = f"dev_{metric.lower()}", processes()
    tries = []
    for rate in rates:
        everything = {**inputs, "rate": rate}

        def make(folder: Path, rate: float = rate) -> None:
            resumed = was_begun(folder)
            with measure() as cost:
                train(folder, rate)
            score = dev_score(load(folder))
            if state.is_main_process:
                shutil.rmtree(folder / "trainer", ignore_errors=True)
                shutil.rmtree(folder / "probe" / "trainer", ignore_errors=True)
                record = {"rate": rate, key: score, "steps": steps()}
                costs = {} if resumed else dataclasses.asdict(cost)
                write_json(folder / "training.json", {**record, **costs, **saved_size(folder)})

        folder = stages.run(f"tuned/{slug(name)}/{rate:g}", everything, make)
        record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        if state.is_main_process:
            print(f"{name}, learning rate {rate:g}: development {metric} {record[key]:.1f}", flush=True)
        tries.append((record, folder, fingerprint(everything)))
    record, folder, identity = max(tries, key=lambda entry: entry[0][key])
    found = {"tries": len(tries), "at_edge": len(rates) > 2 and record["rate"] in (min(rates), max(rates))}
    return Method(name, lambda: load(folder), identity, {**record, **found}, folder)
