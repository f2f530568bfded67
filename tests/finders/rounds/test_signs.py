"""The sign problem of one neuron: learning-rate rewinding solves it, rewinding to the start cannot."""

from pathlib import Path

import torch
from toy_tasks import neuron

from ks_lottery.finders.rounds.imp import IterativeMagnitude
from ks_lottery.finders.rounds.lrr import LearningRateRewinding
from ks_lottery.finders.rounds.runs import Run
from ks_lottery.training.runs import TrainerRuns, trainer_runs
from ks_lottery.units.slab import Slab, UnitGroup
from tests.training.perceptron import arguments


def runs_of(folder: Path, inputs: int, seed: int) -> TrainerRuns:
    points = torch.randn(2000, inputs, generator=torch.Generator().manual_seed(100 + seed))
    return trainer_runs(
        folder, lambda: neuron(inputs, seed), [{"x": points}],
        lambda place: arguments(
            place, max_steps=1500, learning_rate=0.05, optim="sgd", per_device_train_batch_size=1, max_grad_norm=0.0
        ),
    )  # fmt: skip


def loss(runs: TrainerRuns, checkpoint) -> float:
    model = neuron(runs.base.shape("w")[1], 0)
    with torch.no_grad():
        model.w.copy_(checkpoint.rows("w"))
        model.a.copy_(checkpoint.rows("a"))
        return float(model(runs.datasets[0][0]["x"][None]).loss)


def ticket_loss(method, runs: TrainerRuns, inputs: int) -> float:
    groups = (UnitGroup("w", (Slab("w", None),), inputs),)
    (level,) = method.levels(groups, runs)
    assert level.kept.indices[0].tolist() == [0]
    start, first_step = method.start(groups, runs)
    return loss(runs, runs.train(Run(start, level.kept, None, first_step)))


def test_with_several_inputs_the_sign_is_learnt_and_kept_only_without_rewinding(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, 5, 0)
    assert loss(runs, runs.train(Run())) < 0.01
    assert ticket_loss(LearningRateRewinding(density=0.2, rounds=1), runs, 5) < 0.01
    assert ticket_loss(IterativeMagnitude(density=0.2, rounds=1), runs, 5) > 0.4


def test_with_one_input_nothing_can_flip_the_sign(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, 1, 0)
    assert loss(runs, runs.train(Run())) > 0.4
