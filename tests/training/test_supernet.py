"""Training a supernet: what shrinks first, what takes no part and comes back, and what is left in the weights."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TrainerState

from ks_lottery.errors import DataError, OptionError, UnitError
from ks_lottery.finders.masks.supernet_search import SupernetRecord, SupernetSearch, relative_costs
from ks_lottery.training.gated import with_gates
from ks_lottery.training.supernet import SupernetTraining, train_supernet, with_layer_gates
from ks_lottery.units.gates import Gates
from ks_lottery.units.slab import UnitGroup
from tests.training.gated_models import DEAD, bert, bert_runs, groups_of, sentences
from tests.training.perceptron import arguments

HEADS = groups_of(bert(), "heads")
NEURONS = groups_of(bert(), "neurons")
ALL = groups_of(bert(), "supernet")
UNITS = 3 * 4 + 3 * 64


def search(groups: tuple[UnitGroup, ...] = ALL, **options: Any) -> SupernetSearch:
    defaults = {
        "trains": None, "costs": (1.0,) * len(groups), "layers": True, "every": 4, "drop": 0.1, "density": 0.5,
        "masked": 0.5, "l1": 0.0, "warmup": 0, "gate_rate": 10.0, "threshold": 1e-3, "memory": 0.5,
    }  # fmt: skip
    return SupernetSearch(groups, **{**defaults, **options})


def trained(folder: Path, asked: SupernetSearch, model: Any = None, **options: Any) -> SupernetRecord:
    model = model or bert()
    settings = arguments(
        folder, **{"max_steps": 8, "per_device_train_batch_size": 16, "learning_rate": 1e-3, **options}
    )
    torch.manual_seed(0)
    return train_supernet(model, asked, dict(model.named_parameters()), settings, sentences(256))


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Weights, gates and what takes part, after each optimizer step of every training."""
    seen: list[dict[str, Any]] = []
    on_step_end = SupernetTraining.on_step_end

    def look(self: SupernetTraining, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        before = [present.clone() for present in self.present]
        seen.append(
            {
                "present": before,
                "gates": [gate.detach().clone() for gate in self._gates],
                "weights": {name: value.detach().clone() for name, value in self._parameters.items()},
            }
        )
        on_step_end(self, args, state, control, **kwargs)

    monkeypatch.setattr(SupernetTraining, "on_step_end", look)
    return seen


class TestSchedule:
    @pytest.mark.parametrize("target", [0.5, 0.2])
    def test_densities_fall_by_a_tenth_to_the_target_exactly(self, target: float) -> None:
        asked = search(density=target)
        expected = [max(target, value) for value in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)]
        assert [asked.density_at(event) for event in range(1, 11)] == expected

    @settings(max_examples=30, deadline=None)
    @given(st.integers(1, 12), st.lists(st.floats(-2, 2), min_size=UNITS, max_size=UNITS), st.integers(0, UNITS - 1))
    def test_a_mask_keeps_exactly_its_share_of_the_largest(self, event: int, gates: list[float], dead: int) -> None:
        asked, values = search(), np.array(gates)
        candidates = np.arange(UNITS) >= dead
        mask = asked.kept(values, candidates, event)
        assert mask.sum() == min(candidates.sum(), round(asked.density_at(event) * UNITS))
        assert not mask[~candidates].any()
        out = candidates & ~mask
        assert not out.any() or np.abs(values[mask]).min() >= np.abs(values[out]).max()

    def test_a_training_draws_one_mask_for_each_event(self, tmp_path: Path) -> None:
        record = trained(tmp_path, search(every=2), max_steps=13)
        assert record.at == (2, 4, 6, 8, 10, 12)
        assert record.kept.sum(axis=1).tolist() == [round(d * UNITS) for d in (0.9, 0.8, 0.7, 0.6, 0.5, 0.5)]
        assert record.steps == 13
        assert record.alive.all()


class TestTickets:
    def record(self) -> SupernetRecord:
        gates = np.array([[4.0, 3.0, 2.0, 1.0], [1.0, 3.0, 4.0, 0.5], [2.0, 1.0, 3.0, 0.0]])
        kept = np.array([[1, 1, 1, 0], [0, 1, 1, 0], [1, 0, 1, 0]], dtype=bool)
        return SupernetRecord((1, 2, 3), gates, kept, np.ones_like(kept), 3)

    def test_units_that_fell_last_stand_first(self) -> None:
        record = self.record()
        assert record.last_kept().tolist() == [3, 2, 3, 0]
        assert np.argsort(-record.scores()).tolist() == [2, 0, 1, 3]

    def test_each_event_has_a_ticket_of_its_own(self) -> None:
        record = self.record()
        orders = [np.argsort(-record.event_scores(event)).tolist() for event in (1, 2, 3)]
        assert orders == [[0, 1, 2, 3], [2, 1, 0, 3], [2, 0, 1, 3]]

    def test_costs_are_relative_to_the_average_unit(self) -> None:
        groups = (UnitGroup("a", ALL[0].slabs, 1), UnitGroup("b", ALL[0].slabs, 3))
        assert relative_costs(groups, [30, 10]) == (2.0, 30 / 45)


class TestGates:
    def test_planted_dead_heads_shrink_first(self, tmp_path: Path) -> None:
        asked = search(HEADS, l1=1e-3, every=30, masked=0.0)
        record = trained(tmp_path, asked, max_steps=120, per_device_train_batch_size=32)
        table = record.gates[-1].reshape(3, 4)
        dead = np.zeros_like(table, dtype=bool)
        dead[tuple(zip(*DEAD, strict=True))] = True
        assert np.abs(table[dead]).max() < 0.1 < 0.5 < np.abs(table[~dead]).min()
        assert not record.kept[2:].reshape(2, 3, 4)[:, dead].any()

    def test_planted_dead_neurons_shrink_first(self, tmp_path: Path) -> None:
        """Five neurons of each layer whose outputs nothing reads, and which get no gradient."""
        model, planted = bert(), np.array([0, 9, 17, 40, 63])
        for group in NEURONS:
            values = model.get_parameter(group.slabs[-1].parameter)
            alive = torch.ones_like(values)
            group.slabs[-1].fill(alive, planted, 0.0)
            with torch.no_grad():
                values.mul_(alive)
            values.register_hook(alive.mul)
        asked = search(NEURONS, l1=1e-4, every=30, layers=False, masked=0.0)
        record = trained(tmp_path, asked, model, max_steps=90, per_device_train_batch_size=32)
        gates = np.abs(record.gates).reshape(3, 3, 64)
        others = np.delete(gates, planted, axis=2)
        assert (gates[:, :, planted].max(axis=(1, 2)) <= np.quantile(others, 0.25, axis=(1, 2)) + 1e-3).all()
        assert gates[-1][:, planted].max() < 0.11 < np.median(others[-1])
        assert others[-1].max() > 2 * gates[-1][:, planted].max()

    def test_of_two_identical_groups_the_expensive_one_dies_first(self, tmp_path: Path) -> None:
        """Neither has a say in the loss, so that the costs alone decide."""
        model = bert()
        for group in HEADS[:2]:
            with torch.no_grad():
                model.get_parameter(group.slabs[-1].parameter).zero_()
            model.get_parameter(group.slabs[-1].parameter).register_hook(torch.zeros_like)
        asked = search(
            HEADS[:2], costs=(1.0, 10.0), l1=0.1, layers=False, every=1, drop=0.01, masked=0.0, gate_rate=1.0
        )
        record = trained(tmp_path, asked, model, max_steps=24, optim="sgd", learning_rate=0.1)
        cheap, expensive = np.split(record.gates, 2, axis=1)
        np.testing.assert_allclose(cheap[-1], 1 - 24 * 0.01, atol=1e-6)
        np.testing.assert_allclose(expensive[:9, 0], 1 - 0.1 * np.arange(1, 10), atol=1e-6)
        assert (expensive[10:] == 0).all()
        alive = record.alive.reshape(24, 2, 4)
        assert alive[:, 0].all()
        assert not alive[-1, 1].any()

    @pytest.mark.parametrize("expensive", [0, 2])
    def test_of_living_groups_the_expensive_one_falls_farther_under_adam(self, expensive: int, tmp_path: Path) -> None:
        costs = [1.0, 1.0, 1.0]
        equal = trained(tmp_path, search(HEADS, costs=tuple(costs), l1=1e-5, layers=False), max_steps=16).gates[-1]
        costs[expensive] = 10.0
        found = trained(tmp_path, search(HEADS, costs=tuple(costs), l1=1e-5, layers=False), max_steps=16).gates[-1]
        fall = (equal - found).reshape(3, 4).mean(axis=1)
        assert fall.argmax() == expensive
        assert fall[expensive] > 0.01 > abs(np.delete(fall, expensive)).max()

    def test_the_penalty_grows_over_the_warm_up(self, tmp_path: Path) -> None:
        asked = search(HEADS, l1=1.0, layers=False, every=1, masked=0.0, warmup=4, drop=0.001)
        plain = {"optim": "sgd", "max_grad_norm": 1e-9, "max_steps": 6, "learning_rate": 1e-3}
        gates = trained(tmp_path, asked, **plain).gates
        steps = -np.diff(np.concatenate([np.ones((1, 12)), gates]), axis=0)
        np.testing.assert_allclose(steps.mean(axis=1), 1e-2 * np.array([0.25, 0.5, 0.75, 1, 1, 1]), atol=1e-6)

    def test_a_gate_leaves_zero_where_the_task_wants_it_more_than_the_penalty(self) -> None:
        gate = torch.nn.Parameter(torch.zeros(4))
        asked = search((UnitGroup("a", HEADS[0].slabs, 4),), l1=0.5, costs=(2.0,), gate_rate=1.0)
        training, state = SupernetTraining(asked, [gate], [], {}), TrainerState(global_step=0)
        gate.grad = torch.tensor([1.5, -1.5, 0.9, 0.0])
        training.on_pre_optimizer_step(None, state, None)
        assert gate.grad.tolist() == [0.5, -0.5, 0.0, 0.0]
        with torch.no_grad():
            gate.sub_(0.1)  # a step with momentum
        training.on_optimizer_step(None, state, None)
        torch.testing.assert_close(gate.detach(), torch.tensor([-0.1, -0.1, 0.0, 0.0]))

    def test_a_gate_of_a_sublayer_multiplies_all_its_units(self) -> None:
        model = bert().eval()
        ids = {"input_ids": torch.randint(1, 20, (3, 8))}
        with with_layer_gates(model, ALL) as layers, torch.no_grad():
            layers[1].fill_(0.25)
            layers[4].fill_(-2.0)
            gated = model(**ids).logits
        with (
            torch.no_grad(),
            Gates(model, ALL).installed({ALL[1].name: torch.full((4,), 0.25), ALL[4].name: torch.full((64,), -2.0)}),
        ):
            torch.testing.assert_close(model(**ids).logits, gated)
        assert not any(module._forward_pre_hooks for module in model.modules())
        assert "layer_gate_biases" not in dict(model.named_children())

    def test_sublayers_without_gates_do_not_move(self, tmp_path: Path) -> None:
        one, other = (trained(tmp_path, search(layers=layers), max_steps=4) for layers in (True, False))
        assert not np.array_equal(one.gates, other.gates)

    def test_folding_them_changes_no_logits(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        model, seen = bert(), []
        ids = {"input_ids": torch.randint(1, 20, (3, 8), generator=torch.Generator().manual_seed(5))}
        ends = SupernetTraining.ends

        def look(self: SupernetTraining) -> Any:
            found = ends(self)
            with torch.no_grad():
                seen.append(model.eval()(**ids).logits)
            return found

        monkeypatch.setattr(SupernetTraining, "ends", look)
        record = trained(
            tmp_path, search(costs=(0.0,) * 3 + (1.0,) * 3, l1=1e-3, threshold=0.85, memory=0.0), model, max_steps=20
        )
        assert 0 < record.alive[-1].sum() < UNITS

        with torch.no_grad():
            after = model.eval()(**ids).logits
        assert record.gates[-1].min() < 0.9
        torch.testing.assert_close(after, seen[0], atol=1e-5, rtol=0)
        for group, alive in zip(ALL, search().split(record.alive[-1]), strict=True):
            columns = group.slabs[-1].take(model.get_parameter(group.slabs[-1].parameter), np.flatnonzero(~alive))
            assert not columns.any()


class TestReactivation:
    @pytest.mark.parametrize("optim", [{"optim": "sgd", "learning_rate": 0.1}, {"weight_decay": 0.1}])
    def test_what_fell_comes_back_exactly_as_it_was(
        self, optim: dict[str, Any], tmp_path: Path, watched: list[dict[str, Any]]
    ) -> None:
        """A mask from step 6 to 9: at step 9 the held values are those of step 6, and afterwards they move."""
        trained(tmp_path, search(every=6, masked=0.5), max_steps=11, **optim)
        at_event, at_end, later = watched[5], watched[8], watched[9]
        moved = 0
        for number, group in enumerate(ALL):
            out = np.flatnonzero(at_end["present"][number].numpy() == 0)
            assert torch.equal(at_event["gates"][number][out], at_end["gates"][number][out])
            assert len(out) == 0 or not torch.equal(at_end["gates"][number][out], later["gates"][number][out])
            for slab in group.slabs:
                before, after = (slab.take(seen["weights"][slab.parameter], out) for seen in (at_event, at_end))
                assert torch.equal(before, after)
                moved += int((slab.take(later["weights"][slab.parameter], out) != after).sum())
            kept = np.setdiff1d(np.arange(group.num_units), out)
            assert not torch.equal(at_event["gates"][number][kept], at_end["gates"][number][kept])
        assert sum(int((present == 0).sum()) for present in at_end["present"]) == UNITS - round(0.9 * UNITS)
        assert all(bool((present == 1).all()) for present in later["present"])
        assert moved > 0

    def test_what_takes_no_part_is_not_in_the_outputs(self, tmp_path: Path) -> None:
        model = bert().eval()
        ids = {"input_ids": torch.randint(1, 20, (3, 8))}
        present = [torch.ones(group.num_units) for group in ALL]
        present[0][2] = 0
        with torch.no_grad():
            with Gates(model, ALL).installed({group.name: one for group, one in zip(ALL, present, strict=True)}):
                without = model(**ids).logits
            ALL[0].slabs[-1].fill(model.get_parameter(ALL[0].slabs[-1].parameter), np.array([2]), 0.0)
            torch.testing.assert_close(model(**ids).logits, without)

    @pytest.mark.parametrize(("masked", "out"), [(0.0, [0, 0, 0]), (0.5, [20, 20, 0]), (1.0, [20, 20, 20])])
    def test_how_long_it_stays_out(
        self, masked: float, out: list[int], tmp_path: Path, watched: list[dict[str, Any]]
    ) -> None:
        trained(tmp_path, search(masked=masked), max_steps=7)
        gone = [sum(int((present == 0).sum()) for present in seen["present"]) for seen in watched]
        assert gone == [0, 0, 0, 0, *out]

    def test_what_never_comes_back_is_in_no_later_mask(self, tmp_path: Path) -> None:
        kept = trained(tmp_path, search(masked=1.0, every=2), max_steps=12).kept
        assert all(not (later & ~earlier).any() for earlier, later in pairwise(kept))

    def test_dead_units_leave_for_good(self, tmp_path: Path, watched: list[dict[str, Any]]) -> None:
        asked = search(HEADS, costs=(0.0, 50.0, 0.0), l1=1.0, layers=False, every=5, masked=0.0, gate_rate=100.0)
        record = trained(tmp_path, asked, max_steps=21)
        assert record.alive.reshape(4, 3, 4)[:, 1].sum(axis=1).tolist()[-1] == 0
        assert record.alive.reshape(4, 3, 4)[:, [0, 2]].all()
        last = watched[-1]["present"]
        assert not last[1].any()
        assert last[0].all()


class TestRecords:
    def test_a_search_is_made_once_and_read_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = bert_runs(tmp_path, max_steps=6).train_supernet(search(every=2))
        again = bert_runs(tmp_path, max_steps=6)
        monkeypatch.setattr(type(again), "_make_supernet", lambda *_: pytest.fail("trained again"))
        other = again.train_supernet(search(every=2))
        assert (first.at, first.steps) == (other.at, other.steps) == ((2, 4, 6), 6)
        for name in ("gates", "kept", "alive"):
            assert np.array_equal(getattr(first, name), getattr(other, name))
            assert getattr(first, name).dtype == getattr(other, name).dtype
        assert (again.passes.forward, again.passes.backward) == (6 * 64, 6 * 64)

    def test_different_searches_have_different_places(self, tmp_path: Path) -> None:
        runs = bert_runs(tmp_path, max_steps=6)
        asked = [
            search(), search(HEADS), search(trains=("classifier.weight",)), search(costs=(2.0,) * 6),
            search(layers=False), search(every=5), search(drop=0.2), search(density=0.4), search(masked=0.0),
            search(l1=1.0), search(warmup=3), search(gate_rate=1.0), search(threshold=0.0), search(memory=0.9),
        ]  # fmt: skip
        assert len({runs.fingerprint(one) for one in asked}) == len(asked)

    def test_a_search_that_was_killed_begins_anew(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def killed(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        options: dict[str, Any] = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2}
        runs = bert_runs(tmp_path, **options)
        with monkeypatch.context() as patch:
            patch.setattr("ks_lottery.training.runs.write_supernet", killed)
            with pytest.raises(KeyboardInterrupt):
                runs.train_supernet(search())
        record = runs.train_supernet(search())
        fresh = bert_runs(tmp_path / "fresh", **options).train_supernet(search())
        assert np.array_equal(record.gates, fresh.gates)
        assert not list((tmp_path / "unfinished").glob("*"))

    def test_what_cannot_be_trained_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"At step \d the gate of unit 0 of 'layers.0.heads' is NaN or infinite"):
            trained(tmp_path, search(), optim="sgd", learning_rate=1e30, max_grad_norm=0.0)
        settings = arguments(tmp_path, max_grad_norm=0.0)
        settings.fp16 = True
        with pytest.raises(OptionError, match=r"fp16=True and max_grad_norm=0, so that .* Use bf16=True"):
            train_supernet(bert(), search(), {}, settings, sentences(16))
        with pytest.raises(UnitError, match="is no group of attention heads"):
            bert_runs(tmp_path, max_steps=6).train_supernet(search(groups_of(bert(), "layers")))
        assert not list(tmp_path.rglob("run.json"))

    def test_gates_are_parameters_that_do_not_decay(self, tmp_path: Path) -> None:
        asked = search(layers=True)
        record = trained(tmp_path, asked, weight_decay=0.5, learning_rate=0.0, max_steps=4)
        assert (record.gates == 1).all()
        model = bert()
        with with_gates(model, ALL), with_layer_gates(model, ALL):
            names = [name for name, _ in model.named_parameters() if "gate" in name]
        assert len(names) == 12
        assert all("bias" in name for name in names)
