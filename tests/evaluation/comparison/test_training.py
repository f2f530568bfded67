"""What a cell trains: under the mask of a weight ticket, from the start of its rounds, with the head that it should."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.errors import TicketError
from ks_lottery.evaluation.compare import Comparison
from ks_lottery.evaluation.comparison.plan import Budget, read_plan
from ks_lottery.evaluation.comparison.training import Trainings
from ks_lottery.evaluation.tasks.base import make_task
from ks_lottery.finders.draws.random import Random
from ks_lottery.finders.search import find_ticket
from ks_lottery.finders.select import Density
from ks_lottery.ticket.ticket import Ticket
from tests.evaluation.comparison.planted import TOKENS, PlantedTask, base_model
from tests.evaluation.tasks.tiny_texts import save_encoder, save_texts
from tests.tiny_models import tiny_llama

STEPS, BATCH = 6, 8
BUDGET = {"steps": STEPS, "batch_size": BATCH, "dense_rates": [0.005], "ticket_rates": [0.05], "batches": 2}
ROUNDS = [{"finder": "imp", "rounds": 2, "density": 0.3, "rewind": 2}, {"finder": "lrr", "rounds": 2, "density": 0.3}]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("texts")
    train, test = save_texts(folder)
    encoder = save_encoder(folder / "encoder")
    return {"kind": "classification", "model": str(encoder), "train": str(train), "test": str(test), "max_length": 16}


def watched(task: Any) -> list[dict[str, torch.Tensor]]:
    """The weights of every model that the task scores from here on."""
    seen, score = [], task.score

    def watch(model: Any, split: str = "test") -> dict[str, float]:
        seen.append({name: value.detach().clone() for name, value in model.named_parameters()})
        return score(model, split)

    task.score = watch
    return seen


def trained_cells(folder: Path, options: dict[str, Any], table: dict[str, Any]) -> list[tuple[Any, Any, Any, Ticket]]:
    """Of every cell with a ticket: cell, record, the weights that were scored, and the ticket."""
    plan = read_plan({"tasks": {"colours": options}, "tables": [table], "replicates": [0], "budget": BUDGET})
    after: list[dict[str, torch.Tensor]] = []
    comparison = Comparison(plan, folder, say=lambda line: after.append(seen[-1]))
    seen = watched(comparison.tasks["colours"])
    records = comparison.run()
    assert not [record.error for record in records if record.error]
    assert len(after) == len(records) == len(comparison.cells)
    return [
        (cell, record, weights, comparison.ticket(cell))
        for (cell, _), record, weights in zip(comparison.cells, records, after, strict=True)
        if cell.density is not None
    ]


@pytest.mark.parametrize(
    ("units", "finders", "density"),
    [
        ("weights", [*ROUNDS, "snip"], 0.3),
        ("neurons", ["criterion"], 0.5),
        ("heads", ["head_importance"], 0.5),
    ],
)
def test_weight_tickets_train_as_masked_models(
    units: str, finders: list[Any], density: float, options: dict[str, Any], tmp_path: Path
) -> None:
    table = {"kind": "weight", "units": units, "densities": [density], "finders": finders}
    made = trained_cells(tmp_path, options, table)
    base = make_task("colours", options).load_model()
    whole = sum(value.numel() for value in base.parameters())
    assert len(made) == 3 * len(finders) + 1
    assert len({record.trainable for _, record, _, _ in made}) == 1
    for cell, record, weights, ticket in made:
        masks = ticket.masks()
        assert record.realised == pytest.approx(density, abs=0.01)
        assert record.trainable == whole - sum(int((~mask).sum()) for mask in masks.values())
        for name, value in weights.items():
            if name in masks:
                assert not value[~masks[name]].any(), (cell.method, name)
            kept = masks.get(name, torch.ones_like(value, dtype=torch.bool))
            moved = not torch.equal(value[kept], base.get_parameter(name)[kept])
            assert moved or not kept.any() or "attention" in name, (cell.method, name)
        rewound = 2 if (cell.of or cell.method) == "imp" else 0
        assert record.training.forward == record.training.backward == (STEPS - rewound) * BATCH, cell.method
    shuffled = [ticket for cell, _, _, ticket in made if cell.control == "shuffled"]
    own = [ticket for cell, _, _, ticket in made if cell.role == "finder"]
    counts = [[{name: len(units) for name, units in one.indices.items()} for one in part] for part in (shuffled, own)]
    assert counts[0] == counts[1]


def test_update_tickets_of_rounds_leave_the_rest_as_it_was(options: dict[str, Any], tmp_path: Path) -> None:
    made = trained_cells(tmp_path, options, {"units": "neurons", "densities": [0.3], "finders": ROUNDS})
    base = dict(make_task("colours", options).load_model().named_parameters())
    assert len({record.trainable for _, record, _, _ in made}) == 1
    for cell, record, weights, ticket in made:
        if (cell.of or cell.method) == "random":
            continue  # trains through its adapter
        masks = ticket.masks()
        assert record.trainable == sum(int(mask.sum()) for mask in masks.values())
        for name, value in weights.items():
            if not name.startswith("classifier"):
                held = ~masks.get(name, torch.zeros_like(value, dtype=torch.bool))
                assert torch.equal(value[held], base[name][held]), (cell.method, name)
        assert any(not torch.equal(weights[name], base[name]) for name in masks)


def test_a_ticket_with_a_start_has_the_head_of_its_task(options: dict[str, Any], tmp_path: Path) -> None:
    """At a learning rate of next to nothing, what is scored is what training began with."""
    task = make_task("colours", options)
    elsewhere = task.load_model()
    with torch.no_grad():
        for parameter in elsewhere.parameters():
            parameter += 0.5
    elsewhere.save_pretrained(tmp_path / "elsewhere")
    start, base = open_checkpoint(tmp_path / "elsewhere"), task.load_model()
    ticket = find_ticket(base, units="neurons", finder="random", selector=Density(0.5))
    budget = Budget(steps=1, batch_size=8, ticket_rates=(1e-12,), partitions=1)
    trainings = Trainings(task, budget, 0, tmp_path)
    seen, name = watched(task), "bert.encoder.layer.0.intermediate.dense.weight"
    for fresh in (False, True):
        trainings.ticket(ticket, start, 0, fresh_head=fresh)
        head = (base if fresh else elsewhere).get_parameter("classifier.weight")
        torch.testing.assert_close(seen[-1]["classifier.weight"], head)
        mask = ticket.masks()[name]
        torch.testing.assert_close(seen[-1][name][mask], elsewhere.get_parameter(name)[mask])
        assert torch.equal(seen[-1][name][~mask], base.get_parameter(name)[~mask])
    assert len(seen) == 2


def test_a_weight_ticket_of_another_model_is_refused(tmp_path: Path) -> None:
    class OtherBase(PlantedTask):
        def load_model(self) -> Any:
            return tiny_llama(seed=1, vocabulary=TOKENS)

    ticket = find_ticket(base_model(), units="neurons", finder=Random("weight"), selector=Density(0.5))
    with pytest.raises(TicketError, match="base model"):
        Trainings(OtherBase(), Budget(), 0, tmp_path).ticket(ticket)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_worker_left_is_cleared(options: dict[str, Any], tmp_path: Path) -> None:
    task, budget = make_task("colours", options), Budget(steps=1, partitions=1)
    ticket = find_ticket(task.load_model(), units="neurons", finder="random", selector=Density(0.5))
    left = tmp_path / f".{ticket.fingerprint}-{task.digest[:20]}-0"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half a model")
    first = Trainings(task, budget, 0, tmp_path).ticket(ticket)
    assert not left.exists()
    assert Trainings(task, budget, 0, tmp_path).ticket(ticket) == first
    assert [file.name for file in tmp_path.glob("*.json")] == [f"{left.name[1:]}.json"]
