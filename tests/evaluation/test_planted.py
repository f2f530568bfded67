"""Every finder on planted tickets: who finds them, what is written down, and that a run goes on where it stopped."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ks_lottery.errors import DataError, OptionError, UnknownNameError
from ks_lottery.evaluation import planted as module
from ks_lottery.evaluation.comparison.finding import Search
from ks_lottery.evaluation.comparison.table import FinderEntry, Table
from ks_lottery.evaluation.comparison.training import Trainings
from ks_lottery.evaluation.planted import PLANTED, PlantedBench, PlantedRow
from ks_lottery.evaluation.planted_cases import CASES, Case, quick_case
from ks_lottery.evaluation.tasks.planted import Planted
from ks_lottery.finders.base import FINDERS
from ks_lottery.units.matrix_rows import MatrixRows
from ks_lottery.units.weights import Weights
from tests.evaluation.comparison.planted import Broken
from tests.evaluation.planted_rows import TINY


def case(name: str) -> Case:
    return next(one for one in CASES if one.name == name)


def rows(folder: Path, chosen: Case, *finders: str, **options: Any) -> dict[str, PlantedRow]:
    bench = PlantedBench(folder, [chosen], finders or None, **options)
    return {row.finder: row for row in bench.run()}


def found(folder: Path, chosen: Case, *finders: str) -> tuple[float, list[float]]:
    """The planted density, and precision of each finder at it; nothing but finding is trained."""
    task = Planted(**chosen.task).task(chosen.name)
    density = len(task.truth) / sum(selection.group.num_units for selection in task.truth.selections.values())
    entries = tuple(FinderEntry(name, {"finder": name}) for name in finders)
    assert isinstance(task.units, Weights | MatrixRows)
    table = Table("update", task.units.name, (density,), entries, {"only": task.units.only})
    search = Search(table, Trainings(task, chosen.budget, 0, folder / "trained"), folder)
    tickets = [search.find(entry).ticket(density) for entry in entries]
    hits = [
        sum(len(np.intersect1d(one.indices[name], own)) for name, own in task.truth.indices.items()) for one in tickets
    ]
    return density, [hit / len(task.truth) for hit in hits]


def test_train_then_mask_finds_planted_rows_and_one_look_does_not(tmp_path: Path) -> None:
    density, (magnitude, random, gradient) = found(tmp_path, case("rows"), "magnitude", "random", "gradient")
    assert magnitude == 1.0
    assert random == pytest.approx(density, abs=1 / 13)  # one of 13 units
    assert gradient <= 0.33


def test_train_then_mask_finds_planted_weights_and_one_look_is_chance(tmp_path: Path) -> None:
    density, (magnitude, random, gradient) = found(tmp_path, case("weights"), "magnitude", "random", "gradient")
    assert density == pytest.approx(0.05, abs=1e-4)
    assert magnitude >= 0.85
    assert random == pytest.approx(density, abs=0.03)
    assert gradient == pytest.approx(density, abs=0.05)


def test_precision_against_density(tmp_path: Path) -> None:
    chosen = Case("quick", "rows", {**case("rows").task, "examples": 64}, TINY.budget)
    made = rows(tmp_path, chosen, "magnitude", "random")
    for name in ("magnitude", "random"):
        curve = made[name].curve
        counts = [round(density * 256) for density, *_ in curve]
        assert counts == [6, 13, 26, 52, 104]
        hits = [round(precision * count) for count, (_, precision, _) in zip(counts, curve, strict=True)]
        assert hits == sorted(hits)
        assert [hit / 13 for hit in hits] == pytest.approx([recall for *_, recall in curve])
        assert curve[1][1] == made[name].precision == made[name].recall
        shared = hits[1]
        assert made[name].iou == pytest.approx(shared / (26 - shared))


def test_every_registered_finder_has_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learners = {name for name, entry in FINDERS.items() if "steps" in entry.__dataclass_fields__}  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "_OPTIONS", {**module._OPTIONS, **{name: {"steps": 4} for name in learners}})
    made = rows(tmp_path, TINY)
    assert set(made) == {PLANTED, *FINDERS.names()}
    assert not [row.reason for row in made.values() if row.failed]
    for row in made.values():
        assert (row.precision is None) == bool(row.reason)
        assert (row.count, row.total, row.kind, row.units) == (2, 8, "update", "heads")
        if row.precision is not None:
            assert row.precision * row.count == pytest.approx(round(row.precision * row.count))
            assert row.trained is not None
            assert row.planted_trained == made[PLANTED].trained
    assert "snip" in made["snip"].reason
    assert "finds weight tickets" in made["snip"].reason


def test_a_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def stop(line: str) -> None:
        said.append(line)
        if len(said) == 2:
            raise KeyboardInterrupt

    bench = PlantedBench(tmp_path, [TINY], ["magnitude", "random"], say=stop)
    with pytest.raises(KeyboardInterrupt):
        bench.run()
    assert [row.finder for row in bench.rows()] == [PLANTED, "magnitude"]
    assert len(bench.run()) == 3
    assert said[-1].startswith("[1/1] tiny, seed 0, random: precision ")
    monkeypatch.setattr(module, "Planted", None)  # nothing is planted when all rows are there
    assert len(bench.run()) == 3
    assert len(list((tmp_path / "rows").glob("*.json"))) == 3


def test_shards_make_the_rows_between_them(tmp_path: Path) -> None:
    bench = PlantedBench(tmp_path, [TINY], ["magnitude", "random"], say=lambda line: None)
    assert [row.finder for row in bench.run((0, 2))] == [PLANTED, "random"]
    assert [row.finder for row in bench.run((1, 2))] == [PLANTED, "magnitude", "random"]


def test_an_accident_is_a_row_and_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FINDERS._entries, "broken", Broken)
    said: list[str] = []
    bench = PlantedBench(tmp_path, [TINY], ["broken"], say=said.append)
    failed = bench.run()[-1]
    assert failed.failed
    assert failed.reason == "ZeroDivisionError: an accident in two lines"
    assert "Traceback" in said[1]
    bench.run()
    assert said[-1].startswith("[1/1] tiny, seed 0, broken: ZeroDivisionError")


def test_a_planted_ticket_that_diverges_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = PlantedBench(tmp_path, [TINY], ["random"])
    monkeypatch.setattr(
        "ks_lottery.evaluation.tasks.planted.PlantedTask.score", lambda *_: {"fit": 0.0, "loss": float("nan")}
    )
    with pytest.raises(DataError, match="The training diverged; lower its rate"):
        bench.run()


def test_what_a_benchmark_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Unknown finder 'magnitud'. Did you mean 'magnitude'"):
        PlantedBench(tmp_path, [TINY], ["magnitud"])
    with pytest.raises(OptionError, match="0 cases"):
        PlantedBench(tmp_path, [])
    with pytest.raises(OptionError, match=r"seeds \[-1\]"):
        PlantedBench(tmp_path, [TINY], seeds=[-1])


def test_rows_are_values(tmp_path: Path) -> None:
    about = {"finder": "ks", "case": "rows", "kind": "update", "units": "heads", "seed": 0, "count": 2, "total": 8}
    row = PlantedRow(**about, trained=0.5, curve=((0.25, 0.5, 0.5),))
    assert PlantedRow.from_dict(json.loads(json.dumps(row.to_dict()))) == row
    assert (row.density, row.ratio) == (0.25, None)
    with pytest.raises(DataError, match="no row of the planted benchmark"):
        PlantedRow.from_dict({**row.to_dict(), "speed": 3})


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.name)
def test_every_case_can_be_planted(one: Case) -> None:
    task = Planted(**{**quick_case(one).task, "examples": 16}).task(one.name)
    assert len(task.truth) >= 2
    assert task.score(task.holding(task.truth))["loss"] < 0.5 * task.nothing
