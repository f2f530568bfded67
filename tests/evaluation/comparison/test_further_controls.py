"""Controls that a table may ask for: the ticket on a permuted base, and a ticket found on data that means nothing."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ks_lottery.evaluation.compare import Comparison
from ks_lottery.evaluation.comparison.plan import read_plan
from ks_lottery.evaluation.sanity import permuted_labels
from ks_lottery.evaluation.tasks.base import Task, make_task
from ks_lottery.evaluation.tasks.permuted import PermutedTask
from ks_lottery.finders.saliency.batches import Batches, batches_of
from ks_lottery.finders.search import find_ticket
from ks_lottery.finders.select import Density
from tests.evaluation.comparison.planted import PlantedTask, planted_plan
from tests.evaluation.tasks.tiny_texts import save_encoder, save_texts

BUDGET = {"steps": 2, "batch_size": 8, "dense_rates": [0.01], "batches": 2}
TABLE = {
    "kind": "weight", "units": "neurons", "densities": [0.5], "finders": ["snip"],
    "controls": ["reinitialised", "permuted"],
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("controls")
    train, test = save_texts(folder)
    model = str(save_encoder(folder / "encoder"))
    task = {"kind": "classification", "model": model, "train": str(train), "test": str(test), "max_length": 16}
    plan = read_plan({"tasks": {"colours": task}, "tables": [TABLE], "replicates": [3], "budget": BUDGET})
    comparison = Comparison(plan, folder / "out", say=lambda line: None)
    assert not [record.error for record in comparison.run() if record.error]
    return comparison


def cell_of(comparison: Comparison, control: str) -> Any:
    return next(cell for cell, _ in comparison.cells if cell.control == control and cell.of)


def test_they_are_rows(made: Comparison) -> None:
    rows = [(record.method, record.role, record.of, record.control) for record in made.records()]
    assert rows[2:] == [
        ("snip", "finder", "", ""),
        ("snip, shuffled", "control", "snip", "shuffled"),
        ("snip, inverted", "control", "snip", "inverted"),
        ("snip, reinitialised", "control", "snip", "reinitialised"),
        ("snip, permuted", "control", "snip", "permuted"),
        ("random", "control", "", "random"),
    ]


def test_a_reinitialised_base_has_the_values_of_the_units_in_other_places(made: Comparison) -> None:
    cell = cell_of(made, "reinitialised")
    own = next(cell for cell, _ in made.cells if cell.method == "snip")
    ticket = made.ticket(cell)
    assert ticket == made.ticket(own)
    start, first_step = made._start(cell, ticket)
    assert first_step == 0
    base = make_task("colours", made.plan.tasks["colours"]).load_model()
    for name, value in base.named_parameters():
        other = start.rows(name)
        if name in ticket.base.shapes and value.unique().numel() > 1:
            assert not torch.equal(other, value), name
            assert torch.equal(other.flatten().sort().values, value.flatten().sort().values), name
        else:
            assert torch.equal(other, value), name
    assert made._start(own, ticket) == (None, 0)


def test_another_task_on_the_same_encoder_has_a_base_of_its_own(made: Comparison) -> None:
    search = made.search(cell_of(made, "reinitialised"))
    ticket = made.ticket(cell_of(made, "reinitialised"))
    task: Any = copy.copy(made.tasks["colours"])
    task.__dict__["digest"] = "another"
    other = replace(search, trainings=replace(search.trainings, task=task))
    assert other.reinitialised(ticket).name != search.reinitialised(ticket).name


def test_a_permuted_ticket_is_found_on_exchanged_labels(made: Comparison) -> None:
    task: Task = made.tasks["colours"]
    evidence = Batches(task.load_model(), batches_of(permuted_labels(task.examples, 3), task.collator, 8, 2, seed=3))
    expected = find_ticket(evidence.model, None, "neurons", "snip", Density(0.5), evidence=evidence)
    assert made.ticket(cell_of(made, "permuted")) == expected
    own = next(cell for cell, _ in made.cells if cell.method == "snip")
    assert made.ticket(own) != expected
    costs = {record.method: record.finding for record in made.records()}
    assert costs["snip, permuted"].forward == costs["snip"].forward == 16


def test_a_permuted_task_is_another_one_with_the_same_score() -> None:
    task = PlantedTask()
    permuted, again = PermutedTask(task, 0), PermutedTask(task, 0)
    assert permuted.digest == again.digest != PermutedTask(task, 1).digest != task.digest
    model = task.load_model()
    assert permuted.score(model) == task.score(model)
    assert (permuted.token_counts() == task.token_counts()).all()
    assert permuted.name == "planted"

    def labels(examples: Any) -> list[tuple[int, ...]]:
        return [tuple(map(int, example["labels"])) for example in examples]

    assert sorted(labels(permuted.examples)) == sorted(labels(task.examples))
    assert not any(one == other for one, other in zip(labels(permuted.examples), labels(task.examples), strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"controls": ["shuffled"]}, r"controls: \['shuffled'\]: may hold reinitialised and permuted, each once"),
        ({"controls": ["permuted", "permuted"]}, "each once; shuffled, inverted and random units stand in every table"),
        ({"controls": "permuted"}, "controls: 'permuted': must be a list"),
        ({"kind": "update", "controls": ["reinitialised"]}, "reinitialised is for weight tickets"),
    ],
)
def test_what_is_wrong_is_said(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_plan({"tasks": {"one": {"kind": "classification"}}, "tables": [TABLE | change]})
    assert planted_plan(["oracle"]).tables[0].all_controls == ("shuffled", "inverted")
