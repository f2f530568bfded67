"""SuperTickets as a finder: tickets of several costs from one training, their ranks, and a second task."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ks_lottery.errors import OptionError, UnitError
from ks_lottery.evaluation.compare import Comparison
from ks_lottery.evaluation.comparison.plan import read_plan
from ks_lottery.finders.base import FINDERS
from ks_lottery.finders.masks.super_tickets import SuperTickets
from ks_lottery.finders.search import find_ticket
from ks_lottery.finders.select import Density
from tests.evaluation.comparison.planted import BUDGET, PlantedTask
from tests.training.gated_models import bert, bert_runs, groups_of, llama_runs

UNITS = 3 * 4 + 3 * 64
DENSITIES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one training, which all tests read."""
    place = tmp_path_factory.mktemp("super")
    list(SuperTickets(every=2).score(groups_of(bert(), "supernet"), bert_runs(place, max_steps=12)))
    return place


@pytest.fixture
def runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Trainings of which one is made and no other may be."""
    found = bert_runs(folder, max_steps=12)
    monkeypatch.setattr(type(found), "_make_supernet", lambda *_: pytest.fail("trained again"))
    return found


class TestTickets:
    @pytest.mark.parametrize("event", range(1, 7))
    def test_each_event_of_one_training_is_a_ticket(self, event: int, runs: Any) -> None:
        method = SuperTickets(every=2, event=event)
        record = runs.train_supernet(method.search(groups_of(bert(), "supernet"), runs))
        ticket = find_ticket(
            runs.base, units="supernet", finder=method, selector=Density(DENSITIES[event - 1]), evidence=runs
        )
        chosen = np.concatenate(
            [
                np.isin(np.arange(selection.group.num_units), selection.indices)
                for selection in ticket.selections.values()
            ]
        )
        assert len(ticket) == round(DENSITIES[event - 1] * UNITS)
        assert np.array_equal(chosen, record.kept[event - 1])

    def test_they_cost_differently(self, runs: Any) -> None:
        tickets = [
            find_ticket(runs.base, units="supernet", finder=method, selector=Density(density), evidence=runs)
            for method, density in ((SuperTickets(every=2, event=number + 1), DENSITIES[number]) for number in range(5))
        ]
        weights = [ticket.num_trainable() for ticket in tickets]
        assert len(set(weights)) == 5
        assert min(weights) < 0.8 * max(weights)
        assert {ticket.kind for ticket in tickets} == {"weight"}

    def test_ranked_by_all_events_the_last_mask_is_exact(self, runs: Any) -> None:
        method = SuperTickets(every=2)
        record = runs.train_supernet(method.search(groups_of(bert(), "supernet"), runs))
        entries = list(method.score(groups_of(bert(), "supernet"), runs))
        score = np.concatenate([entry.score for entry in entries])
        last = np.concatenate([entry.columns["last"] for entry in entries])
        assert set(np.argsort(-score, kind="stable")[: UNITS // 2]) == set(np.flatnonzero(record.kept[-1]))
        assert np.array_equal(np.floor(score), last)
        assert np.array_equal(np.concatenate([entry.columns["gate"] for entry in entries]), record.gates[-1])

    def test_columns_say_what_a_unit_costs(self, runs: Any) -> None:
        entries = list(SuperTickets(every=2).score(groups_of(bert(), "supernet"), runs))
        assert {float(value) for entry in entries[:3] for value in entry.columns["cost"]} == {4 * 32 * 8 + 3 * 8.0}
        assert {float(value) for entry in entries[3:] for value in entry.columns["cost"]} == {2 * 32 + 1.0}
        for entry in entries:
            assert set(entry.columns) == {"gate", "cost", "last", "alive"}
            assert all(len(column) == entry.group.num_units for column in entry.columns.values())


class TestSearch:
    def test_costs_are_those_of_the_weights_or_equal(self, runs: Any) -> None:
        groups = groups_of(bert(), "supernet")
        weights = np.array([1048.0] * 3 + [65.0] * 3)
        sizes = np.array([4] * 3 + [64] * 3)
        expected = weights / ((weights * sizes).sum() / sizes.sum())
        np.testing.assert_allclose(SuperTickets().search(groups, runs).costs, expected)
        assert SuperTickets(cost="equal").search(groups, runs).costs == (1.0,) * 6

    def test_every_event_is_of_the_same_training(self, runs: Any) -> None:
        groups = groups_of(bert(), "supernet")
        assert SuperTickets(event=1).search(groups, runs) == SuperTickets(event=4).search(groups, runs)
        assert SuperTickets().search(groups, runs).trains is None
        assert set(SuperTickets(kind="update").search(groups, runs).trains or ()) == {
            slab.parameter for group in groups for slab in group.slabs
        }

    def test_a_training_with_too_few_events_is_refused(self, runs: Any) -> None:
        groups = groups_of(bert(), "supernet")
        with pytest.raises(OptionError, match=r"event 7 is asked for, but a training of 12 steps has 6. Lower every"):
            list(SuperTickets(every=2, event=7).score(groups, runs))
        with pytest.raises(OptionError, match=r"one ticket every 20 steps, and event 1 is asked for, but .* has 0"):
            list(SuperTickets(every=20).score(groups, runs))

    def test_a_density_that_no_event_reaches_is_told(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING):
            list(SuperTickets(every=2).score(groups_of(bert(), "heads"), bert_runs(tmp_path, max_steps=4)))
        assert "super_tickets: 2 events of 2 steps reach a density of 0.8, not 0.5" in caplog.text

    def test_units_without_gates_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UnitError, match="is no group of attention heads or feed-forward neurons"):
            list(SuperTickets(every=2).score(groups_of(bert(), "layers"), bert_runs(tmp_path, max_steps=4)))

    def test_options_out_of_range_are_refused(self) -> None:
        wrong: list[tuple[str, Any]] = [
            ("kind", "none"), ("density", 0.0), ("density", 1.0), ("drop", 0.0), ("every", 0), ("event", -1),
            ("masked", 1.5), ("cost", "flops"), ("l1", -1.0), ("warmup", 2.0), ("gate_rate", 0.0), ("threshold", -1.0),
            ("memory", 1.0),
        ]  # fmt: skip
        for option, value in wrong:
            with pytest.raises(OptionError, match=rf"Finder 'super_tickets', {option}={value!r}: must"):
                SuperTickets(**{option: value})


@pytest.mark.parametrize(
    ("make", "units", "options"),
    [
        (llama_runs, "supernet", {}),
        (llama_runs, "heads", {"kind": "update"}),
        (bert_runs, "neurons", {"layers": False}),
    ],
)
def test_it_scores_every_unit_and_a_second_search_trains_nothing(
    make: Any, units: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = make(tmp_path, max_steps=4)
    groups = groups_of(runs.load_model(), units)
    method = FINDERS.get("super_tickets")(every=1, **options)
    assert method.name == "super_tickets"
    assert method.kind == options.get("kind", "weight")
    first = list(method.score(groups, runs))
    assert [entry.group for entry in first] == list(groups)
    assert all(np.isfinite(entry.score).all() for entry in first)
    spent = runs.passes.forward
    monkeypatch.setattr(type(runs), "_make_supernet", lambda *_: pytest.fail("trained again"))
    for one, other in zip(first, method.score(groups, runs), strict=True):
        assert np.array_equal(one.score, other.score)
    assert runs.passes.forward == 2 * spent > 0


def test_a_ticket_of_one_task_is_trained_on_another(tmp_path: Path) -> None:
    """Found on task a and trained on task b, and the other way round, through the comparison."""
    tasks = {name: PlantedTask(name, seed=seed) for seed, name in enumerate("ab")}
    plan = read_plan(
        {
            "tasks": {name: {"kind": "planted"} for name in tasks},
            "replicates": [0],
            "budget": {**BUDGET, "steps": 3, "ticket_rates": [0.01]},
            "tables": [
                {
                    "kind": "weight", "units": "supernet", "densities": [0.8],
                    "finders": [{"finder": "super_tickets", "every": 1, "density": 0.75}],
                }
            ],
            "transfer": {"finders": ["super_tickets"], "density": 0.8},
        }
    )  # fmt: skip
    comparison = Comparison(plan, tmp_path, (0, 1), tasks, say=lambda line: None)  # type: ignore[arg-type]
    comparison.run()
    records = [one for one in comparison.records() if one.method == "super_tickets"]
    assert {(one.found_on, one.task) for one in records} == {("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")}
    assert all(0.0 <= one.score <= 100.0 for one in records)
    assert len(list((tmp_path / "runs").glob("*/supernet.safetensors"))) == 2
