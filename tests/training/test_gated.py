"""Training with gates: what moves, by how much, and that nothing is left of the gates afterwards."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Trainer

from ks_lottery.errors import DataError, OptionError, UnitError
from ks_lottery.finders.rounds.runs import GateRecord, GateSearch, Run
from ks_lottery.training.gated import train_gates, with_gates
from ks_lottery.units.slab import UnitGroup
from tests.training.gated_models import bert, bert_runs, groups_of, sentences
from tests.training.perceptron import arguments

HEADS = groups_of(bert(), "heads")
NEURONS = groups_of(bert(), "neurons")
OPTIMIZERS = [
    {"optim": "sgd", "learning_rate": 0.1, "optim_args": "momentum=0.9"},
    {"optim": "adamw_torch", "learning_rate": 1e-3, "weight_decay": 0.1},
]


def search(groups: tuple[UnitGroup, ...] = HEADS, trains=None, **options) -> GateSearch:
    defaults = {
        "density": 0.5, "scope": "global", "every": 4, "window": 9, "epsilon": 0.0, "l1": 1e-3, "gate_rate": 10.0,
        "worm": None,
    }  # fmt: skip
    return GateSearch(groups, trains, **{**defaults, **options})


def trained(folder: Path, asked: GateSearch, **options) -> tuple[GateRecord, dict[str, torch.Tensor]]:
    """What comes of a search, and all weights after it."""
    model = bert()
    settings = arguments(folder, **{"max_steps": 7, "per_device_train_batch_size": 16, **options})
    names = None if asked.trains is None else set(asked.trains)
    parameters = {name: value for name, value in model.named_parameters() if names is None or name in names}
    torch.manual_seed(0)
    record = train_gates(model, asked, parameters, settings, sentences(128))
    return record, {name: value.detach().clone() for name, value in model.named_parameters()}


def weights_of(group: UnitGroup, units: np.ndarray, values: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    return [slab.take(values[slab.parameter], units) for slab in group.slabs]


def optimizer_of(monkeypatch: pytest.MonkeyPatch) -> list[torch.optim.Optimizer]:
    """Every optimizer that a Trainer makes from here on."""
    made = []
    create = Trainer.create_optimizer

    def watched(self, *args):
        made.append(create(self, *args))
        return made[-1]

    monkeypatch.setattr(Trainer, "create_optimizer", watched)
    return made


@pytest.mark.parametrize("options", OPTIMIZERS)
class TestShorterSteps:
    def test_a_factor_of_1_is_plain_training(self, options: dict, tmp_path: Path) -> None:
        plain, weights = trained(tmp_path, search(), **options)
        record, same = trained(tmp_path, search(worm=1.0), **options)
        assert all(torch.equal(weights[name], value) for name, value in same.items())
        assert all(np.array_equal(one, other) for one, other in zip(plain.gates, record.gates, strict=True))
        _, other = trained(tmp_path, search(worm=0.5), **options)
        assert any(not torch.equal(weights[name], value) for name, value in other.items())

    @pytest.mark.parametrize("groups", [HEADS, NEURONS])
    def test_a_factor_of_0_freezes_what_loses(
        self, groups: tuple[UnitGroup, ...], options: dict, tmp_path: Path
    ) -> None:
        """The only look is at step 4, and seven steps are taken."""
        asked = search(groups, worm=0.0)
        early, at_look = trained(tmp_path, asked, max_steps=4, **options)
        late, at_end = trained(tmp_path, asked, max_steps=7, **options)
        kept = asked.kept(early.gates)
        assert kept.count == sum(group.num_units for group in groups) // 2
        moved = 0
        for group, units, before, after in zip(groups, kept.indices, early.gates, late.gates, strict=True):
            losing = np.setdiff1d(np.arange(group.num_units), units)
            assert np.array_equal(before[losing], after[losing])
            assert (before[units] != after[units]).all()
            for one, other in zip(weights_of(group, losing, at_look), weights_of(group, losing, at_end), strict=True):
                assert torch.equal(one, other)
            moved += sum(
                int((one != other).sum())
                for one, other in zip(weights_of(group, units, at_look), weights_of(group, units, at_end), strict=True)
            )
        assert moved > 0
        outside = "classifier.weight"
        assert not torch.equal(at_look[outside], at_end[outside])

    def test_a_factor_is_that_share_of_the_step(self, options: dict, tmp_path: Path) -> None:
        asked, options = search(worm=0.25), {**options, "weight_decay": 0.0}
        early, at_look = trained(tmp_path, asked, max_steps=4, **options)
        _, whole = trained(tmp_path, search(), max_steps=5, **options)
        _, quarter = trained(tmp_path, asked, max_steps=5, **options)
        for group, units in zip(HEADS, asked.kept(early.gates).indices, strict=True):
            losing = np.setdiff1d(np.arange(group.num_units), units)
            for start, full, part in zip(
                *(weights_of(group, losing, values) for values in (at_look, whole, quarter)), strict=True
            ):
                torch.testing.assert_close(part, start + 0.25 * (full - start))
            for full, part in zip(*(weights_of(group, units, values) for values in (whole, quarter)), strict=True):
                assert torch.equal(full, part)


class TestGates:
    @pytest.mark.parametrize("rate", [4.0, 0.5])
    def test_a_gate_steps_rate_times_as_far_as_its_optimizer_says(self, rate: float, tmp_path: Path) -> None:
        for options in OPTIMIZERS:
            one, _ = trained(tmp_path, search(gate_rate=1.0), max_steps=1, **options)
            other, _ = trained(tmp_path, search(gate_rate=rate), max_steps=1, **options)
            assert all((gate != 1).all() for gate in one.gates)
            for mine, theirs in zip(one.gates, other.gates, strict=True):
                np.testing.assert_allclose(theirs - 1, rate * (mine - 1), rtol=1e-3, atol=1e-6)

    def test_the_penalty_is_behind_the_clipping(self, tmp_path: Path) -> None:
        sgd = {"optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 1e-6, "max_steps": 1}
        record, _ = trained(tmp_path, search(l1=0.5, gate_rate=1.0), **sgd)
        for gate in record.gates:
            np.testing.assert_allclose(gate, 1 - 0.1 * 0.5, atol=1e-5)

    def test_they_do_not_decay(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        made = optimizer_of(monkeypatch)
        record, _ = trained(tmp_path, search(l1=0.0), weight_decay=0.5, learning_rate=0.0, max_steps=2)
        assert all((gate == 1).all() for gate in record.gates)
        decays = [
            group["weight_decay"] for group in made[0].param_groups for one in group["params"] if one.shape == (4,)
        ]
        assert decays == [0.0] * 3
        assert {group["weight_decay"] for group in made[0].param_groups} == {0.0, 0.5}

    def test_they_are_gone_afterwards(self) -> None:
        model = bert()
        names, modules = [name for name, _ in model.named_parameters()], [name for name, _ in model.named_modules()]

        def interrupted() -> None:
            with with_gates(model, HEADS) as gates:
                inside = [name for name, _ in model.named_parameters()]
                assert len(inside) == len(names) + len(gates) == len(names) + 3
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert [name for name, _ in model.named_parameters()] == names
        assert [name for name, _ in model.named_modules()] == modules
        assert not any(module._forward_pre_hooks for module in model.modules())

    def test_only_what_trains_moves(self, tmp_path: Path) -> None:
        name = HEADS[0].slabs[0].parameter
        record, after = trained(tmp_path, search(trains=(name,), worm=0.5))
        before = dict(bert().named_parameters())
        assert {key for key, value in after.items() if not torch.equal(value, before[key])} == {name}
        assert all((gate != 1).all() for gate in record.gates)

    def test_half_precision_gets_gates_in_float32(self, tmp_path: Path) -> None:
        model = bert().to(torch.bfloat16)
        settings = arguments(tmp_path, max_steps=2, per_device_train_batch_size=16, bf16=True, learning_rate=1e-5)
        record = train_gates(model, search(gate_rate=1.0), {}, settings, sentences(64))
        assert all((gate != 1).all() and (abs(gate - 1) < 1e-4).all() for gate in record.gates)

    def test_what_cannot_be_trained_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"At step 4 the gate of unit 0 of 'layers.0.heads' is NaN or infinite"):
            trained(tmp_path, search(), optim="sgd", learning_rate=1e30, max_grad_norm=0.0)
        settings = arguments(tmp_path, max_grad_norm=0.0)
        settings.fp16 = True
        with pytest.raises(OptionError, match=r"fp16=True and max_grad_norm=0, so that .* Use bf16=True"):
            train_gates(bert(), search(), {}, settings, sentences(16))


class TestRuns:
    def test_a_search_is_made_once_and_counted_each_time(self, tmp_path: Path) -> None:
        runs = bert_runs(tmp_path, max_steps=6)
        first = runs.train_gates(search(every=2))
        again = bert_runs(tmp_path, max_steps=6)
        stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("gates.safetensors")}
        other = again.train_gates(search(every=2))
        assert len(stamps) == 1
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("gates.safetensors")} == stamps
        assert all(np.array_equal(one, two) for one, two in zip(first.gates, other.gates, strict=True))
        assert (first.fired, first.steps) == (other.fired, other.steps) == (None, 6)
        assert (again.passes.forward, again.passes.backward) == (6 * 64, 6 * 64)
        assert again.passes.seconds == runs.passes.seconds > 0

    def test_different_searches_have_different_places(self, tmp_path: Path) -> None:
        runs = bert_runs(tmp_path, max_steps=6)
        asked = [
            search(), search(NEURONS), search(trains=("classifier.weight",)), search(density=0.4), search(every=5),
            search(scope="group"), search(window=3), search(epsilon=0.2), search(l1=0.0), search(gate_rate=1.0),
            search(worm=1.0), search(HEADS[:2]),
        ]  # fmt: skip
        assert len({runs.fingerprint(one) for one in [*asked, Run()]}) == len(asked) + 1

    def test_a_search_that_was_killed_begins_anew(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def killed(*_, **__):
            raise KeyboardInterrupt

        options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2}
        runs = bert_runs(tmp_path, **options)
        with monkeypatch.context() as patch:
            patch.setattr("ks_lottery.training.runs.write_gates", killed)
            with pytest.raises(KeyboardInterrupt):
                runs.train_gates(search())
        assert list((tmp_path / "unfinished").glob("*/checkpoint-*"))
        record = runs.train_gates(search())
        fresh = bert_runs(tmp_path / "fresh", **options).train_gates(search())
        assert all(np.array_equal(one, two) for one, two in zip(record.gates, fresh.gates, strict=True))
        assert not list((tmp_path / "unfinished").glob("*"))

    def test_units_without_gates_leave_nothing_behind(self, tmp_path: Path) -> None:
        runs = bert_runs(tmp_path, max_steps=6)
        with pytest.raises(UnitError, match="is no group of attention heads"):
            runs.train_gates(search(groups_of(bert(), "layers")))
        assert not list(tmp_path.rglob("run.json"))
