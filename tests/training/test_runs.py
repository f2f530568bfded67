"""Trainings that finders ask for: made once, resumed, and exactly what they say."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ks_lottery.errors import DataError, OptionError
from ks_lottery.finders.rounds.runs import Kept, Run
from ks_lottery.training.runs import TrainerRuns, trainer_runs
from tests.training.perceptron import arguments, examples, matrices, perceptron, products

DATA = examples(*products(96, 0))
SGD = {"optim": "sgd", "learning_rate": 0.1, "lr_scheduler_type": "linear", "per_device_train_batch_size": 16}


def runs_in(folder: Path, parts: int = 1, seed: int = 0, **options) -> TrainerRuns:
    settings = {"max_steps": 10, **SGD, **options}
    return trainer_runs(
        folder, lambda: perceptron(seed), DATA, lambda place: arguments(place, **settings), parts=parts
    )  # fmt: skip


def values(checkpoint) -> dict[str, torch.Tensor]:
    return {name: checkpoint.rows(name).clone() for name in checkpoint.names()}


def kept_half(rest: str) -> Kept:
    groups = matrices(perceptron())
    return Kept(groups, tuple(np.arange(0, group.num_units, 2) for group in groups), rest)


def test_a_run_is_made_once_and_counted_each_time(tmp_path: Path) -> None:
    runs = runs_in(tmp_path)
    first = values(runs.train(Run()))
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    again = runs_in(tmp_path)
    assert all(torch.equal(first[name], value) for name, value in values(again.train(Run())).items())
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == stamps
    assert (again.passes.forward, again.passes.backward) == (160, 160)
    assert again.passes.seconds == runs.passes.seconds > 0


def test_different_runs_have_different_places(tmp_path: Path) -> None:
    runs = runs_in(tmp_path, parts=2)
    asked = [
        Run(), Run(trains=("layers.0.weight",)), Run(last_step=3), Run(part=0), Run(part=1),
        Run(kept=kept_half("weight")), Run(kept=kept_half("update")), Run(start=runs.train(Run(last_step=3))),
        Run(start=runs.train(Run(last_step=3)), first_step=3),
    ]  # fmt: skip
    marks = {runs.fingerprint(run) for run in asked}
    assert len(marks) == len(asked)
    assert runs_in(tmp_path, learning_rate=0.2).fingerprint(Run()) not in marks
    assert runs_in(tmp_path, weight_decay=0.1).fingerprint(Run()) not in marks
    assert runs_in(tmp_path, seed=1).fingerprint(Run()) != runs_in(tmp_path).fingerprint(Run())


def test_going_on_from_a_step_is_the_training_that_never_stopped(tmp_path: Path) -> None:
    """Plain SGD has no state, so a new optimizer is the old one: rate and data order must go on from the step."""
    runs = runs_in(tmp_path)
    whole = values(runs.train(Run()))
    for step in (1, 5, 7):
        early = runs.train(Run(last_step=step))
        resumed = values(runs.train(Run(start=early, first_step=step)))
        assert all(torch.equal(whole[name], resumed[name]) for name in whole), step
        rewarmed = values(runs.train(Run(start=early)))
        assert any(not torch.equal(whole[name], rewarmed[name]) for name in whole)


def test_masks_hold(tmp_path: Path) -> None:
    runs, base = runs_in(tmp_path), dict(perceptron().named_parameters())
    for rest in ("weight", "update"):
        kept = kept_half(rest)
        after = values(runs.train(Run(kept=kept)))
        for name, mask in kept.masks({name: value.shape for name, value in base.items()}).items():
            expected = torch.zeros_like(base[name]) if rest == "weight" else base[name]
            assert torch.equal(after[name][~mask], expected[~mask])
            assert (after[name][mask] != base[name][mask]).any()


def test_only_what_trains_moves(tmp_path: Path) -> None:
    after, base = (
        values(runs_in(tmp_path).train(Run(trains=("layers.1.weight",)))),
        dict(perceptron().named_parameters()),
    )
    assert {name for name in after if not torch.equal(after[name], base[name])} == {"layers.1.weight"}


def test_partitions_take_turns(tmp_path: Path) -> None:
    runs = runs_in(tmp_path, parts=3)
    assert [len(dataset) for dataset in runs.datasets] == [96, 32, 32, 32]
    assert torch.equal(runs.datasets[2][5]["x"], DATA[3 * 5 + 1]["x"])


def test_a_killed_search_goes_on_from_its_last_finished_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = runs_in(tmp_path)
    early = values(runs.train(Run(last_step=3)))

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ks_lottery.training.runs.write_whole_checkpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            runs.train(Run())
        assert all(torch.equal(early[name], v) for name, v in values(runs.train(Run(last_step=3))).items())
    whole = values(runs.train(Run()))
    fresh = values(runs_in(tmp_path / "fresh").train(Run()))
    assert all(torch.equal(whole[name], fresh[name]) for name in whole)
    assert not list((tmp_path / "unfinished").glob("*"))


def test_what_cannot_be_run_is_refused(tmp_path: Path) -> None:
    runs = runs_in(tmp_path, parts=2)
    with pytest.raises(OptionError, match="asked to rewind to step 10, but a whole training has 10 steps"):
        runs.train(Run(start=runs.base, first_step=10))
    with pytest.raises(OptionError, match="asked to stop at step 11, but a whole training has 10 steps"):
        runs.train(Run(last_step=11))
    with pytest.raises(OptionError, match="asked to train on data partition 2 of 2"):
        runs.train(Run(part=2))
    with pytest.raises(DataError, match="Partition 0 has 14 examples, fewer than one batch of 16"):
        runs_in(tmp_path, parts=7)
    with pytest.raises(DataError, match="The data set has 96 examples, fewer than one batch of 128"):
        runs_in(tmp_path, per_device_train_batch_size=128)
    with pytest.raises(DataError, match="ended with weights that are NaN or infinite. Lower the learning rate"):
        runs_in(tmp_path, learning_rate=1e30).train(Run())
