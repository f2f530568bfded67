"""What children of these tests do: write a ticket, a folder, an export, a probe, runs, a comparison."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ks_lottery.adapter.export.exporter import export_ticket
from ks_lottery.checkpoints.writer import atomic_folder, write_json
from ks_lottery.evaluation.compare import Comparison
from ks_lottery.evaluation.record import CellCost, Record
from ks_lottery.finders.rounds.runs import Run
from ks_lottery.ticket.ticket import Provenance, Ticket
from ks_lottery.training.probe import probe
from ks_lottery.training.runs import TrainerRuns, trainer_runs
from tests.adapter.tickets import make_ticket, tuned
from tests.evaluation.comparison.planted import PlantedTask, planted_plan
from tests.tiny_models import tiny_llama
from tests.training.perceptron import arguments, examples, perceptron, products
from tests.training.tiny_task import tiny_examples, tiny_tokenizer

SGD = {"optim": "sgd", "learning_rate": 0.1, "lr_scheduler_type": "linear", "per_device_train_batch_size": 16}
PLAN = planted_plan(["magnitude"], replicates=[0], budget={"steps": 2})


def ticket_of(rows: list[int]) -> Ticket:
    """A ticket of these rows of a tiny Llama, with a statistic for each."""
    made = make_ticket(tiny_llama(), rows=(rows, rows))
    name, selection = next(iter(made.selections.items()))
    columns = {"statistic": np.linspace(0.1, 0.9, len(rows))}
    measured = {**made.selections, name: replace(selection, columns=columns)}
    return Ticket(made.kind, made.granularity, measured, made.base, Provenance("by hand", {"note": "a test"}))


def save_ticket(place: Path, rows: list[int]) -> None:
    """Save a ticket of these rows."""
    ticket_of(rows).save(place)


def save_folder(place: Path, text: str) -> None:
    """Write a folder of two files, one of them in a folder of its own."""
    with atomic_folder(place) as folder:
        (folder / "sub").mkdir()
        (folder / "one").write_text(text)
        (folder / "sub" / "two").write_text(text)


def save_json(place: Path, text: str) -> None:
    """Write a JSON file."""
    write_json(place, {"text": text})


def export(place: Path, seed: int) -> None:
    """Export a trained adapter for plain PEFT."""
    export_ticket(tuned(tiny_llama(), "input", seed=seed), place, base_model="user/base")


def make_probe(place: Path) -> None:
    """Probe a tiny Llama for eight steps, with a checkpoint every third."""
    tokenizer = tiny_tokenizer()
    options = {
        "learning_rate": 1e-2, "max_steps": 8, "per_device_train_batch_size": 4, "use_cpu": True, "disable_tqdm": True,
        "save_strategy": "steps", "save_steps": 3,
    }  # fmt: skip
    model = tiny_llama(vocabulary=len(tokenizer))
    probe(model, tiny_examples(tokenizer), place, arguments=options, processing_class=tokenizer)


def runs_in(place: Path) -> TrainerRuns:
    """Trainings of a perceptron."""
    data, settings = examples(*products(96, 0)), {"max_steps": 10, "save_strategy": "steps", "save_steps": 3, **SGD}
    return trainer_runs(place, perceptron, data, lambda folder: arguments(folder, **settings))


def make_run(place: Path) -> None:
    """One whole training of the perceptron."""
    runs_in(place).train(Run())


def comparison_in(place: Path) -> Comparison:
    """A comparison of a few cells that says nothing."""
    return Comparison(PLAN, place, tasks={"planted": PlantedTask()}, say=lambda line: None)


def compare(place: Path) -> None:
    """Make all cells; a cell that failed is an error."""
    records = comparison_in(place).run()
    assert not [record.error for record in records if record.error], records


def timeless(records: list[Record]) -> list[dict[str, Any]]:
    """Records as JSON values, without what the machine decides."""

    def same(cost: CellCost) -> CellCost:
        return replace(cost, seconds=0.0, peak_bytes=0)

    return [
        json.loads(json.dumps(replace(one, finding=same(one.finding), training=same(one.training)).to_dict()))
        for one in records
    ]
