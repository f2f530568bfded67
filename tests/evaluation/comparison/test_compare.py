"""The harness itself: a finder that knows the answer wins, one that throws dice does not, and all cells are alike."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ks_lottery.errors import DataError, OptionError
from ks_lottery.evaluation.compare import Comparison, _require_one_gpu
from ks_lottery.evaluation.comparison.overlap import chance_overlap, overlaps
from ks_lottery.evaluation.comparison.plan import Plan
from ks_lottery.evaluation.record import CellCost, Record
from ks_lottery.report.comparison import sanity_verdicts, write_comparison
from tests.evaluation.comparison.planted import PLANTED, TOKENS, Broken, PlantedTask, base_model, planted_plan

EXAMPLES = 10 * 8
FEW = {"replicates": [0], "budget": {"steps": 2}}


def compared(folder: Path, plan: Plan, *tasks: PlantedTask, shard: tuple[int, int] = (0, 1)) -> Comparison:
    """A comparison that says nothing."""
    given = {task.name: task for task in tasks or (PlantedTask(),)}
    return Comparison(plan, folder, shard, given, say=lambda line: None)


def timeless(records: list[Record]) -> list[Record]:
    """Records without what the machine decides."""

    def same(cost: CellCost) -> CellCost:
        return replace(cost, seconds=0.0, peak_bytes=0)

    return [replace(one, finding=same(one.finding), training=same(one.training)) for one in records]


@pytest.fixture(scope="module")
def task() -> PlantedTask:
    return PlantedTask()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, task: PlantedTask) -> Comparison:
    """Four replicates of a finder that knows the planted rows, and of one that throws dice."""
    plan = planted_plan(["oracle", "dice"], replicates=[0, 1, 2, 3])
    comparison = compared(tmp_path_factory.mktemp("planted"), plan, task)
    comparison.run()
    return comparison


def test_a_finder_of_the_planted_rows_wins_and_a_random_one_does_not(made: Comparison) -> None:
    verdicts = {(one.method, one.control): one for one in sanity_verdicts(made.records())}
    for control in ("shuffled", "inverted", "random", "frequency"):
        assert verdicts["oracle", control].passes, verdicts["oracle", control]
        assert verdicts["dice", control].verdict.startswith("fails"), verdicts["dice", control]
    same = verdicts["dice", "random"]
    assert same.low < 0 < same.high
    assert abs(same.mean) < verdicts["oracle", "random"].mean / 3
    best = max(made.records(), key=lambda record: record.score)
    assert best.method == "oracle"
    assert made.ticket(next(cell for cell, mark in made.cells if mark == best.cell)).indices["input"].tolist() == [
        *PLANTED
    ]


def test_every_control_is_a_row(made: Comparison) -> None:
    rows = {(record.method, record.role, record.of, record.control) for record in made.records()}
    assert rows == {
        ("no tuning", "reference", "", ""), ("full tuning", "reference", "", ""), ("all units", "reference", "", ""),
        ("random", "control", "", "random"), ("frequency", "control", "", "frequency"),
        *((name, "finder", "", "") for name in ("oracle", "dice")),
        *((f"{name}, shuffled", "control", name, "shuffled") for name in ("oracle", "dice")),
        *((f"{name}, inverted", "control", name, "inverted") for name in ("oracle", "dice")),
    }  # fmt: skip
    assert len(made.records()) == len(made.cells) == 1 + 2 * 4 + 8 * 4


def test_every_cell_has_the_same_data_order_and_base_weights(made: Comparison, task: PlantedTask) -> None:
    # A Trainer asks for the next batch before it knows that it need not train on it.
    orders = {tuple(order[:10]) for order in task.order if order}
    assert len(orders) == len(made.plan.replicates)
    assert all(len(order) == 10 for order in orders)
    assert len([order for order in task.order if order]) >= len(made.cells) - 1
    again, base = task.load_model().state_dict(), base_model().state_dict()
    assert all(torch.equal(value, base[name]) for name, value in again.items())
    tickets = [made.ticket(cell) for cell, _ in made.cells if cell.density is not None]
    assert len({ticket.base.digest for ticket in tickets}) == 1


def test_all_tickets_of_a_density_are_of_one_size(made: Comparison) -> None:
    tickets = [record for record in made.records() if record.density is not None]
    width = base_model().config.hidden_size
    assert {record.trainable for record in tickets} == {len(PLANTED) * width}
    assert {record.ticket_bytes for record in tickets} == {4 * len(PLANTED) * width}
    assert {record.realised for record in tickets} == {len(PLANTED) / TOKENS}
    sizes = {record.method: record.trainable for record in made.records() if record.role == "reference"}
    whole = sum(parameter.numel() for parameter in base_model().parameters())
    assert sizes == {"no tuning": 0, "full tuning": whole, "all units": TOKENS * width}


def test_passes_are_counted_exactly(made: Comparison) -> None:
    for record in made.records():
        # All units are tuned with the probe's rate and with the tickets'.
        trained = {"no tuning": 0, "all units": 2 * EXAMPLES}.get(record.method, EXAMPLES)
        assert (record.training.forward, record.training.backward) == (trained, trained)
        assert (record.finding.forward, record.finding.backward) == (0, 0)


def test_a_rerun_repeats_nothing(made: Comparison) -> None:
    lines, before = [], {file: file.read_bytes() for file in made.folder.rglob("*.json*")}
    again = Comparison(made.plan, made.folder, tasks=made.tasks, say=lines.append)
    assert again.run() == made.records()
    assert lines == []
    assert {file: file.read_bytes() for file in made.folder.rglob("*.json*")} == before


def test_overlaps_with_chance(made: Comparison) -> None:
    found = overlaps(made)
    of = {(one["first"], one["second"], one["first_replicate"], one["second_replicate"]): one for one in found}
    methods = ("oracle", "dice", "random")
    assert len(found) == 4 * 3 + 3 * 6
    assert {name for one in found for name in (one["first"], one["second"])} == set(methods)
    assert {one["jaccard"] for key, one in of.items() if key[:2] == ("oracle", "oracle")} == {1.0}
    used = int((made.tasks["planted"].token_counts() > 0).sum())
    shared = 3 * 3 / used
    assert {one["chance"] for one in found} == {shared / (6 - shared)}


def test_chance_is_what_two_draws_share(made: Comparison) -> None:
    one, other = (made.ticket(cell) for cell, _ in made.cells if cell.method == "dice" and cell.replicate < 2)
    generator = np.random.default_rng(0)
    shared = np.mean([
        len(np.intersect1d(*(generator.choice(20, 3, replace=False) for _ in range(2)))) for _ in range(4000)
    ])  # fmt: skip
    assert chance_overlap(one, other, 20) == pytest.approx(shared / (6 - shared), rel=0.1)
    assert chance_overlap(one, other) == pytest.approx((9 / TOKENS) / (6 - 9 / TOKENS))


def test_the_table_can_be_written_and_exported(made: Comparison, tmp_path: Path) -> None:
    from pyarrow import parquet

    page = write_comparison(tmp_path, made.records(), overlaps(made), made.meta(), "a command").read_text("utf-8")
    assert "**1 of 2 finders beat their own shuffles**: oracle (token\\_rows, update)." in page
    assert "other controls: inverted: 1 of 2; random: 1 of 2; frequency: 1 of 2." in page
    assert "| steps of every training | 10 |" in page
    assert (tmp_path / "update-token-rows-overlap.png").is_file()
    table = parquet.read_table(made.store.export())
    assert table.num_rows == len(made.cells)
    assert {"method", "score", "finding_forward", "training_seconds", "scores"} <= set(table.column_names)


def test_a_cell_that_crashes_is_recorded_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, lines = planted_plan(["broken", "oracle"], **FEW), []
    comparison = Comparison(plan, tmp_path, tasks={"planted": PlantedTask()}, say=lines.append)
    first = {record.method: record for record in comparison.run()}
    failed = {name for name, record in first.items() if record.error}
    assert failed == {"broken", "broken, shuffled", "broken, inverted"}
    assert first["broken"].error == "ZeroDivisionError: an accident in two lines"
    assert first["broken"].score is None
    assert any("Traceback" in line and "planted.py" in line for line in lines)
    assert comparison.is_complete()
    assert not comparison.is_complete(failed_are_done=False)
    assert "## Cells that failed" in write_comparison(tmp_path / "report", comparison.records()).read_text("utf-8")

    monkeypatch.setattr(Broken, "crashes", False)
    lines.clear()
    again = {record.method: record for record in comparison.run()}
    assert len(lines) == 3
    assert [record for name, record in again.items() if name not in failed] == [
        record for name, record in first.items() if name not in failed
    ]
    assert comparison.is_complete(failed_are_done=False)
    assert again["broken"].ticket == again["oracle"].ticket
    assert again["broken"].score == again["oracle"].score


def test_when_everything_fails_the_report_says_so(tmp_path: Path) -> None:
    class Diverging(PlantedTask):
        def score(self, model: torch.nn.Module, split: str = "test") -> dict[str, float]:
            return {"agreement": float("nan")}

    comparison = compared(tmp_path, planted_plan(["oracle"], **FEW), Diverging())
    records = comparison.run()
    assert {record.error for record in records} == {
        "DataError: The score is nan: the training diverged. Lower the learning rate."
    }
    assert "0 finished cells" in write_comparison(tmp_path / "report", records).read_text("utf-8")


def test_a_rate_that_diverges_loses_against_one_that_does_not(tmp_path: Path) -> None:
    class FirstDiverges(PlantedTask):
        tried = 0

        def score(self, model: torch.nn.Module, split: str = "test") -> dict[str, float]:
            scores = super().score(model, split)
            if split == "dev":
                self.tried += 1
                scores["agreement"] = float("nan") if self.tried % 2 else scores["agreement"]
            return scores

    plan = planted_plan(["oracle"], replicates=[0], budget={"steps": 4, "ticket_rates": [0.1, 0.2]})
    both = {one.method: one for one in compared(tmp_path / "a", plan, FirstDiverges()).run()}
    plan = planted_plan(["oracle"], replicates=[0], budget={"steps": 4, "ticket_rates": [0.2]})
    alone = {one.method: one for one in compared(tmp_path / "b", plan).run()}
    assert both["oracle"].score == alone["oracle"].score
    assert both["oracle"].training.forward == 2 * alone["oracle"].training.forward == 2 * 4 * 8


def test_two_shards_over_one_folder_are_one_worker(tmp_path: Path) -> None:
    plan = planted_plan(["magnitude", "fisher"], **FEW)
    alone = compared(tmp_path / "alone", plan).run()
    first = compared(tmp_path / "shared", plan, shard=(0, 2))
    second = compared(tmp_path / "shared", plan, shard=(1, 2))
    second.run()
    assert not first.is_complete()
    both = first.run()
    assert first.is_complete()
    assert timeless(both) == timeless(alone)
    names = [(tmp_path / "shared" / "results" / f"{index}-of-2.jsonl") for index in (0, 1)]
    assert [len(name.read_text().splitlines()) for name in names] == [(len(alone) + 1) // 2, len(alone) // 2]
    with pytest.raises(OptionError, match="Shard 2/2 does not exist: count from 0, so the last one is 1"):
        compared(tmp_path / "shared", plan, shard=(2, 2))


def test_a_torn_line_and_lost_cells_are_made_again(tmp_path: Path) -> None:
    plan = planted_plan(["oracle"], **FEW)
    records = compared(tmp_path, plan).run()
    file = tmp_path / "results" / "0-of-1.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:4]) + lines[4][:50])
    said: list[str] = []
    comparison = Comparison(plan, tmp_path, tasks={"planted": PlantedTask()}, say=said.append)
    assert len(comparison.records()) == 4
    assert timeless(comparison.run()) == timeless(records)
    assert len(said) == len(records) - 4
    assert file.read_bytes().startswith(b"".join(lines[:4]) + lines[4][:50] + b"\n")
    # What was trained before is read: even the seconds are the same.
    assert [one.training for one in comparison.records()] == [one.training for one in records]


def test_other_data_is_another_cell(tmp_path: Path) -> None:
    plan = planted_plan(["oracle"], **FEW)
    first = compared(tmp_path, plan).run()
    other = compared(tmp_path, plan, PlantedTask(seed=1))
    assert other.records() == []
    alone = compared(tmp_path / "alone", plan, PlantedTask(seed=1)).run()
    assert timeless(other.run()) == timeless(alone)
    assert [one.score for one in alone] != [one.score for one in first]


def test_tickets_travel_between_tasks_and_share_no_trainings(tmp_path: Path) -> None:
    """The two tasks have two of three rows in common."""
    here, there = PlantedTask("here"), PlantedTask("there", rows=(5, 11, 20), seed=1)
    plan = planted_plan(
        ["oracle", "fisher"], ["here", "there"], replicates=[0],
        transfer={"finders": ["oracle", "fisher", "random"], "density": 0.125},
    )  # fmt: skip
    records = compared(tmp_path / "both", plan, here, there).run()
    of = {(one.method, one.found_on, one.task): one for one in records}
    assert not any(one.error for one in records)
    for method in ("oracle", "fisher", "random"):
        for found_on, task in (("here", "there"), ("there", "here")):
            assert (method, found_on, found_on) in of
            travelled = of[method, found_on, task]
            assert travelled.ticket == of[method, found_on, found_on].ticket
            assert travelled.role == ("control" if method == "random" else "finder")
            assert travelled.finding == of[method, found_on, found_on].finding
    assert of["fisher", "here", "there"].ticket != of["fisher", "there", "there"].ticket
    # The oracle knows the rows of `here`: they do best there, and worse on the task that has one other row.
    scores = [of["oracle", "here", "here"], of["oracle", "here", "there"], of["random", "there", "there"]]
    assert scores[0].score > scores[1].score > scores[2].score
    by_itself = compared(tmp_path / "one", planted_plan(["oracle"], ["there"], replicates=[0]), there)
    alone = {one.method: one for one in by_itself.run()}
    for method in ("full tuning", "all units", "no tuning", "random", "oracle, shuffled"):
        assert of[method, "there", "there"].score == alone[method].score


def test_finding_is_paid_by_everyone_who_uses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a clock that runs in trainings alone, 1000 seconds each."""
    from ks_lottery.training import runs

    clock, write = [0.0], runs.write_whole_checkpoint

    def slow(*arguments: object, **options: object) -> None:
        clock[0] += 1000.0
        write(*arguments, **options)

    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    monkeypatch.setattr(runs, "write_whole_checkpoint", slow)
    finders = [
        "magnitude", {"finder": "magnitude", "label": "again", "relative_to": "before"}, "fisher",
        {"finder": "imp", "rounds": 2, "density": 0.125}, {"finder": "lt_sft", "rounds": 2, "density": 0.125},
    ]  # fmt: skip
    records = compared(tmp_path, planted_plan(finders, **FEW)).run()
    assert not [record.error for record in records if record.error]
    one = 2 * 8
    expected = {
        "magnitude": (one, 1000.0), "again": (one, 1000.0), "fisher": (2 * 8, 0.0), "imp": (2 * one, 2000.0),
        "lt_sft": (3 * one, 3000.0), "random": (0, 0.0), "frequency": (0, 0.0),
    }  # fmt: skip
    for record in records:
        if record.role != "reference":
            examples, seconds = expected[record.of or record.method]
            spent = record.finding
            assert (spent.forward, spent.backward, spent.seconds) == (examples, examples, seconds), record.method
    shuffled = {record.ticket for record in records if record.control == "shuffled"}
    assert len(shuffled) == len(finders)


def test_folders_of_other_comparisons_are_refused(tmp_path: Path) -> None:
    compared(tmp_path, planted_plan(["oracle"], **FEW))
    with pytest.raises(OptionError) as caught:
        compared(tmp_path, planted_plan(["oracle"], replicates=[0], budget={"steps": 5}))
    assert f"{str(tmp_path)!r} holds another comparison: budget.steps was 2 and is 5. Give another" in str(caught.value)
    kept = json.loads((tmp_path / "comparison.json").read_text())
    assert kept["plan"]["budget"]["steps"] == 2


def test_too_little_data_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    comparison = compared(tmp_path, planted_plan(["oracle"]), PlantedTask(texts=7))
    with pytest.raises(DataError, match=r"The task 'planted' has 7 training examples, fewer than one batch of 8"):
        comparison.run()
    assert comparison.records() == []


def test_a_trainer_on_several_gpus_is_refused() -> None:
    with pytest.raises(OptionError, match="sees 2 GPUs, and a Trainer would share each batch out .* 2 times as many"):
        _require_one_gpu(2)
    assert _require_one_gpu(1) is None
