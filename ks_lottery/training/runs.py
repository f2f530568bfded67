"""Trainings of one model on one task by a stock Trainer, each kept under the fingerprint of what decided it."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerState, TrainingArguments
from typing_extensions import override

from ks_lottery.checkpoints.reader import Checkpoint, open_checkpoint
from ks_lottery.checkpoints.writer import write_json
from ks_lottery.errors import DataError, OptionError
from ks_lottery.finders.masks.supernet_search import SupernetRecord, SupernetSearch
from ks_lottery.finders.passes import Passes
from ks_lottery.finders.rounds.runs import GateRecord, GateSearch, Run, Runs
from ks_lottery.ticket.identity import identify
from ks_lottery.training.arguments import deciding_options
from ks_lottery.training.cost import Cost, measure
from ks_lottery.training.gated import read_gates, train_gates, write_gates
from ks_lottery.training.probe import newest_checkpoint
from ks_lottery.training.probe_folders import write_whole_checkpoint
from ks_lottery.training.projection import Projection
from ks_lottery.training.run_lock import exclusively
from ks_lottery.training.scope import only_trainable
from ks_lottery.training.sealed import is_sealed, read_sealed, require_seal, seal_folder
from ks_lottery.training.supernet import read_supernet, train_supernet, write_supernet
from ks_lottery.units.layout import task_head

_RECORD = "run.json"


@dataclass(frozen=True)
class TrainerRuns(Runs):
    """Trainings of one model on one task by a stock Trainer.

    Every finished run is a folder `folder/<fingerprint>` that `from_pretrained` reads, so finders share what they have
    in common (the dense run above all) and a killed search goes on from its last finished run.

        runs = trainer_runs("runs/imp", load_model, examples, arguments, collator)
        ticket = find_ticket(load_model(), units="weights", finder="imp", selector=Density(0.1), evidence=runs)

    Attributes:
        folder: of the runs.
        load_model: makes a fresh copy of the pretrained model.
        datasets: training examples; one entry, or one per partition after the whole.
        arguments: makes the Trainer's arguments for a folder of its checkpoints; the same ones each time.
        collator: of the Trainer; None: its own.
        marks: further JSON values that decide a result and that nobody can read off the rest: a digest of the data.
    """

    folder: Path = Path("runs")
    load_model: Callable[[], Any] = field(default=lambda: None, compare=False)
    datasets: Sequence[Any] = ()
    arguments: Callable[[Path], TrainingArguments] = field(default=lambda folder: TrainingArguments(), compare=False)
    collator: Any = None
    marks: Mapping[str, Any] = field(default_factory=dict)

    @override
    def train(self, run: Run) -> Checkpoint:
        self._require_possible(run)
        mark = self.fingerprint(run)
        return open_checkpoint(self._finished(mark, lambda place: self._make(run, place, mark)))

    @override
    def train_gates(self, search: GateSearch) -> GateRecord:
        mark = self.fingerprint(search)
        return read_gates(self._finished(mark, lambda place: self._make_gates(search, place, mark)) / _RECORD)

    @override
    def train_supernet(self, search: SupernetSearch) -> SupernetRecord:
        mark = self.fingerprint(search)
        return read_supernet(self._finished(mark, lambda place: self._make_supernet(search, place, mark)) / _RECORD)

    @cached_property
    def _base_digest(self) -> str:
        """What the base model is known by; its sampled weights are read once."""
        return identify(self.base, self.base.names()).digest

    def fingerprint(self, run: Run | GateSearch | SupernetSearch) -> str:
        """Hex SHA-256 of all that decides the result of a run."""
        arguments = self.arguments(self.folder / "unfinished")
        content = {
            "base": self._base_digest,
            "arguments": {**deciding_options(arguments), "weight_decay": arguments.weight_decay},
            "steps": self.steps,
            "parts": [len(dataset) for dataset in self.datasets],
            "marks": dict(self.marks),
            **_asked(run),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    def _finished(self, mark: str, make: Callable[[Path], None]) -> Path:
        """The folder of a run, made if no earlier call made it; counts what the run costs."""
        place = self.folder / mark[:20]
        if not is_sealed(place):
            with exclusively(place):
                if not (place / _RECORD).is_file():
                    make(place)
                if not is_sealed(place):
                    shutil.rmtree(self.folder / "unfinished" / mark[:20], ignore_errors=True)
                    seal_folder(place)
        way_out = f"Delete the folder {str(place)!r}: it is made again."
        require_seal(place, way_out)
        record = read_sealed(place / _RECORD, way_out)
        if record["fingerprint"] != mark:
            raise OptionError(f"{str(place)!r} holds another run than the one asked for. Delete it.")
        self.passes.count(record["examples"], record["examples"], record["seconds"])
        return place

    def _require_possible(self, run: Run) -> None:
        for what, step in (("rewind to", run.first_step), ("stop at", run.last_step or 0)):
            if not 0 <= step <= self.steps or (step == self.steps and what == "rewind to"):
                raise OptionError(
                    f"A run is asked to {what} step {step}, but a whole training has {self.steps} steps. Choose one "
                    f"from 0 to {self.steps - 1}."
                )
        if run.part is not None and not 0 <= run.part < self.parts:
            raise OptionError(
                f"A run is asked to train on data partition {run.part} of {self.parts}. Give trainer_runs more "
                "partitions (parts=...), or the finder fewer."
            )

    def _make(self, run: Run, place: Path, mark: str) -> None:
        """Train in `folder/unfinished`, then write the result in one move."""
        work = self.folder / "unfinished" / mark[:20]
        arguments = self.arguments(work)
        torch.manual_seed(arguments.seed)
        model = self.load_model()
        # Values in float32, whatever the dtype of the base: the optimizer steps those.
        trained = _trained(model, run.trains)
        callbacks: list[TrainerCallback] = []
        if run.kept is not None:
            rest = None if run.kept.rest == "weight" else _copies(model, run.kept.groups)
            masks = run.kept.masks({name: tuple(value.shape) for name, value in model.named_parameters()})
            callbacks.append(Projection({name: mask for name, mask in masks.items() if name in trained}, rest))
        _load_start(model, run.start, run.head)
        if run.last_step is not None:
            callbacks.append(_StopAt(run.last_step))
        with only_trainable(model, trained), measure() as cost:
            dataset = self.datasets[0 if run.part is None else 1 + run.part]
            trainer = Trainer(
                model=model, args=arguments, train_dataset=dataset, data_collator=self.collator, callbacks=callbacks
            )
            trainer.remove_callback(PrinterCallback)  # a line per training, of which a search has dozens
            resumed = newest_checkpoint(work)
            if resumed is None and run.first_step:
                resumed = str(_continued(trainer, work, run.first_step, self.steps))
            if run.last_step != run.first_step:
                trainer.train(resume_from_checkpoint=resumed)
            done = trainer.state.global_step - run.first_step
            finite = all(bool(torch.isfinite(value).all()) for value in trained.values())
            if not finite:
                raise DataError(
                    f"The training {place.name} ended with weights that are NaN or infinite. Lower the learning rate."
                )
            write_whole_checkpoint(place, model, model.config, list(trained))
        write_json(place / _RECORD, _record(mark, done, arguments, cost))

    def _make_gates(self, search: GateSearch, place: Path, mark: str) -> None:
        """Train with gates, then write the result in one move."""
        with self._anew(mark) as (model, arguments):
            with measure() as cost:
                trained = _trained(model, search.trains)
                found = train_gates(model, search, trained, arguments, self.datasets[0], self.collator)
            write_gates(place / _RECORD, found, _record(mark, found.steps, arguments, cost))

    def _make_supernet(self, search: SupernetSearch, place: Path, mark: str) -> None:
        """Train a supernet, then write the result in one move."""
        with self._anew(mark) as (model, arguments):
            with measure() as cost:
                trained = _trained(model, search.trains)
                found = train_supernet(model, search, trained, arguments, self.datasets[0], self.collator)
            write_supernet(place / _RECORD, found, _record(mark, found.steps, arguments, cost))

    @contextlib.contextmanager
    def _anew(self, mark: str) -> Iterator[tuple[Any, TrainingArguments]]:
        """A fresh model and arguments for a training that begins at its start, whatever an earlier call left."""
        work = self.folder / "unfinished" / mark[:20]
        shutil.rmtree(work, ignore_errors=True)
        arguments = self.arguments(work)
        torch.manual_seed(arguments.seed)
        yield self.load_model(), arguments


def trainer_runs(
    folder: str | Path,
    load_model: Callable[[], Any],
    dataset: Any,
    arguments: Callable[[Path], TrainingArguments],
    collator: Any = None,
    parts: int | Sequence[Any] = 1,
    marks: Mapping[str, Any] | None = None,
) -> TrainerRuns:
    """Trainings of one model on one data set.

    Args:
        folder: of the runs.
        load_model: makes a fresh copy of the pretrained model, the same each time.
        dataset: training examples with a length.
        arguments: makes the Trainer's arguments for a folder of its checkpoints.
        collator: of the Trainer; None: its own.
        parts: how many partitions COLT may train on, example i in partition i modulo `parts`; or the partitions.
        marks: JSON values that decide the result beside all this, such as a digest of the data.

    Raises:
        DataError: if the data set, or a partition, is smaller than one batch.
    """
    settings = arguments(Path(folder) / "unfinished")
    batch = _batch(settings)
    if isinstance(parts, int):
        pieces = [torch.utils.data.Subset(dataset, range(part, len(dataset), parts)) for part in range(parts)]
    else:
        pieces = list(parts)
    for name, piece in [("The data set", dataset), *((f"Partition {i}", piece) for i, piece in enumerate(pieces))]:
        if len(piece) < batch:
            raise DataError(
                f"{name} has {len(piece)} examples, fewer than one batch of {batch}. Give more examples, a smaller "
                "batch, or fewer partitions."
            )
    per_epoch = -(-len(dataset) // batch)
    steps = settings.max_steps if settings.max_steps > 0 else -(-per_epoch * settings.num_train_epochs // 1)
    return TrainerRuns(
        base=open_checkpoint(load_model()), steps=int(steps), parts=len(pieces), passes=Passes(), folder=Path(folder),
        load_model=load_model, datasets=[dataset, *pieces], arguments=arguments, collator=collator, marks=marks or {},
    )  # fmt: skip


class _StopAt(TrainerCallback):
    """Ends a training early, under the schedule of the whole one."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        if state.global_step >= self._step:
            control.should_training_stop = True
        return control


def _batch(arguments: TrainingArguments) -> int:
    """Examples of one optimizer step."""
    return arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size


def _record(mark: str, steps: int, arguments: TrainingArguments, cost: Cost) -> dict[str, Any]:
    """What is written down of a finished run."""
    return {"fingerprint": mark, "steps": steps, "examples": steps * _batch(arguments), "seconds": cost.seconds}


def _asked(run: Run | GateSearch | SupernetSearch) -> dict[str, Any]:
    """A run as JSON values."""
    if isinstance(run, GateSearch | SupernetSearch):
        return {"gates" if isinstance(run, GateSearch) else "supernet": run.to_dict()}
    return {
        "start": _start_mark(run.start),
        "kept": None if run.kept is None else run.kept.digest,
        "trains": run.trains,
        "first_step": run.first_step,
        "last_step": run.last_step,
        "part": run.part,
        "head": _start_mark(run.head),
    }


def _trained(model: Any, names: Sequence[str] | None) -> dict[str, torch.nn.Parameter]:
    """What trains: all, or the named parameters and the task head of a classifier."""
    parameters = dict(model.named_parameters())
    if names is None:
        return parameters
    head = task_head(parameters)
    return {name: value for name, value in parameters.items() if name in set(names) or name.partition(".")[0] == head}


def _copies(model: Any, groups: Sequence[Any]) -> dict[str, torch.Tensor]:
    touched = {slab.parameter for group in groups for slab in group.slabs}
    return {name: value.detach().clone() for name, value in model.named_parameters() if name in touched}


def _load_start(model: Any, start: Checkpoint | None, head: Checkpoint | None) -> None:
    """Give a model its first values; those of its task head from `head`, where there is one."""
    module = task_head(dict(model.named_parameters()))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            own = head if head is not None and name.partition(".")[0] == module else start
            if own is not None:
                parameter.copy_(own.rows(name))
                own.release(name)


def _start_mark(start: Checkpoint | None) -> str | None:
    """What a starting point is known by: the run that made it, or its sampled weights."""
    if start is None:
        return None
    record = Path(start.name) / _RECORD
    if record.is_file():
        return str(json.loads(record.read_text(encoding="utf-8"))["fingerprint"])
    return identify(start, start.names()).digest


def _continued(trainer: Trainer, work: Path, step: int, steps: int) -> Path:
    """A Trainer checkpoint that has `step` steps behind it, with a new optimizer and the schedule at that step."""
    folder = work / f"checkpoint-{step}"
    trainer.create_optimizer_and_scheduler(steps)
    trainer.optimizer.step()  # no gradient, no change; torch wants it before the scheduler
    for _ in range(step):
        trainer.lr_scheduler.step()
    trainer.save_model(str(folder))
    torch.save(trainer.optimizer.state_dict(), folder / "optimizer.pt")
    torch.save(trainer.lr_scheduler.state_dict(), folder / "scheduler.pt")
    settings = trainer.args
    state = TrainerState(
        global_step=step, max_steps=steps, train_batch_size=settings.train_batch_size,
        logging_steps=int(settings.logging_steps), save_steps=int(settings.save_steps),
    )  # fmt: skip
    state.save_to_json(str(folder / "trainer_state.json"))
    return folder
