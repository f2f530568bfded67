"""The kind of task `planted`: a base model, a teacher's labels, and the ticket that explains them."""

from typing import Any

import numpy as np
import pytest
import torch

from ks_lottery.errors import OptionError, TicketError, UnitError, UnknownNameError
from ks_lottery.evaluation.tasks.base import Task, make_task
from ks_lottery.evaluation.tasks.planted import Planted, PlantedTask
from ks_lottery.evaluation.tasks.planted_hosts import VOCABULARY, host_transformer
from ks_lottery.finders.saliency.batches import Batches
from ks_lottery.finders.search import score_units
from ks_lottery.ticket.controls import random_like


def planted(**options: Any) -> PlantedTask:
    task = make_task("planted", {"kind": "planted", "examples": 64, **options})
    assert isinstance(task, PlantedTask)
    return task


@pytest.mark.parametrize(
    "options",
    [
        {"units": "neurons"}, {"units": "heads", "count": 2}, {"units": "token_rows", "count": 3},
        {"units": "weights", "only": "*.mlp.c_fc.weight *.mlp.c_proj.weight"}, {"units": "heads", "count": 3},
    ],
)  # fmt: skip
def test_the_truth_of_a_transformer_has_no_loss(options: dict[str, Any]) -> None:
    task = planted(**options)
    assert isinstance(task, Task)
    assert task.score(task.load_model()) == {"fit": 0.0, "loss": task.nothing}
    taught = task.score(task.holding(task.truth))
    assert taught["loss"] <= 1e-12
    assert taught["fit"] == pytest.approx(100)
    other = task.score(task.holding(random_like(task.truth, 7, exclude=np.concatenate([*task.truth.indices.values()]))))
    assert other["loss"] == pytest.approx(task.nothing, rel=1e-5)
    assert len(task.examples) == 64
    assert int(task.token_counts().sum()) == 64 * 16


@pytest.mark.parametrize("units", ["heads", "neurons"])
def test_a_teacher_that_has_nothing_else(units: str) -> None:
    task = Planted(kind="weight", units=units, density=0.25, examples=8).task("kept")
    assert task.truth.kind == "weight"
    assert task.score(task.holding(task.truth))["loss"] <= 1e-12
    assert task.score(task.load_model())["loss"] == task.nothing > 1e-4


@pytest.mark.parametrize(("host", "floor"), [("relu", 2e-4), ("helix", 6e-4), ("circle", 0.6)])
def test_the_truth_of_a_perceptron_is_the_noise(host: str, floor: float) -> None:
    task = planted(host=host)
    assert (task.truth.kind, task.truth.granularity) == ("weight", "weights")
    loss = task.score(task.holding(task.truth))["loss"]
    assert loss < floor
    assert task.score(task.load_model())["loss"] > 100 * floor
    assert ("accuracy" in task.score(task.load_model())) == (host == "circle")
    with pytest.raises(OptionError, match="has numbers for inputs, and no tokens"):
        task.token_counts()


def test_a_seed_gives_the_same_task_and_another_one_another() -> None:
    first, second, third = (planted(units="heads", count=2, seed=seed) for seed in (0, 0, 1))
    assert first.digest == second.digest
    assert first.truth == second.truth
    assert third.digest != first.digest
    assert planted(host="relu").digest != planted(host="relu", seed=1).digest
    # No generator of torch takes part, so its seed decides nothing.
    torch.manual_seed(5)
    assert planted(units="heads", count=2).digest == first.digest


def test_splits_do_not_overlap() -> None:
    task = planted(units="heads", count=2)
    assert [len(values) for values in task.data.values()] == [64 + 768] * 2
    before = task.score(task.load_model(), "dev")
    task.data["input_ids"][-512:] = 0
    assert task.score(task.load_model(), "dev") == before
    task.data["input_ids"][-768:-512] = 0
    assert task.score(task.load_model(), "dev") != before


def test_gradients_of_token_rows_are_those_that_texts_use() -> None:
    model = host_transformer(0)
    used = np.random.default_rng(0).choice(VOCABULARY, 16, replace=False)
    texts = torch.from_numpy(np.random.default_rng(1).choice(used, (32, 16)))
    batches = [{"input_ids": texts, "labels": torch.zeros(32, 16, VOCABULARY)}]
    (scores,) = score_units(model, units="token_rows", finder="gradient", evidence=Batches(model, batches))
    assert np.flatnonzero(scores.score > 0).tolist() == sorted(set(texts.reshape(-1).tolist()))
    model.config.tie_word_embeddings = True
    model.lm_head.weight = model.transformer.wte.weight
    (scores,) = score_units(model, units="token_rows", finder="gradient", evidence=Batches(model, batches))
    assert (scores.score > 0).all()


def test_a_ticket_over_other_units_is_refused() -> None:
    with pytest.raises(TicketError, match="granularity"):
        planted(units="heads", count=2).holding(planted(units="neurons").truth)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"host": "square"}, OptionError, "host: 'square': must be transformer or one of relu, circle, helix"),
        ({"units": "wings"}, UnknownNameError, "Unknown granularity 'wings'"),
        ({"units": "token_rows", "only": "x"}, OptionError, "units='token_rows' takes no patterns"),
        ({"units": "heads", "count": 9}, UnitError, "9 units are to be planted, but there are 8"),
        ({"density": 1.0}, OptionError, "a density of 1"),
        ({"count": 0}, OptionError, "a density of 0"),
        ({"size": float("nan")}, OptionError, "size=nan"),
        ({"host": "helix", "width": 20}, UnitError, "wider than the network"),
        ({"host": "helix", "depth": 2}, OptionError, "depth=2"),
        ({"examples": 0}, OptionError, "examples: 0: draw at least 1"),
    ],
)
def test_what_cannot_be_planted(options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        planted(**options)
