"""The loop that all learnt masks share."""

import math

import numpy as np
import pytest
import torch

from ks_lottery.errors import OptionError, UnitError
from ks_lottery.finders.masks.edge_popup import StraightThrough
from ks_lottery.finders.masks.kept import KeptUnits
from ks_lottery.finders.masks.learning import Descent, learn, mask_scores
from ks_lottery.finders.masks.masked import masked
from tests.finders.masks.models import frozen_of
from tests.finders.saliency.models import groups_of


def test_rates_fall_as_half_a_cosine() -> None:
    descent = Descent(steps=4, learning_rate=2.0)
    assert [descent.rate(step) for step in range(4)] == pytest.approx(
        [2.0, 1 + math.sqrt(0.5), 1.0, 1 - math.sqrt(0.5)]
    )
    assert Descent(steps=4, learning_rate=2.0, cosine=False).rate(3) == 2.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0, "learning_rate": 1.0}, "steps=0: a mask is learnt in at least 1 step"),
        ({"steps": 1, "learning_rate": 0.0}, "learning_rate=0.0: must be a number above 0"),
        ({"steps": 1, "learning_rate": math.inf}, "learning_rate=inf"),
        ({"steps": 1, "learning_rate": 1.0, "optimizer": "lion"}, "optimizer='lion': must be sgd or adam"),
    ],
)
def test_descents_that_make_no_sense_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Descent(**options)  # type: ignore[arg-type]


def test_batches_come_in_turn_again_and_again() -> None:
    evidence = frozen_of("llama", "weight")
    with masked(evidence, groups_of(evidence.model, "heads"), "weight") as model:
        seen: list[int] = []

        def objective(number: int, batch: object) -> torch.Tensor:
            seen.append(number)
            return sum(parameter.square().sum() for parameter in model.wanted.values())  # type: ignore[return-value]

        scores = torch.linspace(0.5, 1.0, model.num_units)
        how = StraightThrough(KeptUnits(model.sizes, 0.5, "global"))
        learn(model, evidence, scores, how, objective, Descent(5, 0.1, "sgd"))
    assert seen == [0, 1, 0, 1, 0]
    assert evidence.passes.backward == 3 + 2 + 3 + 2 + 3
    assert (scores < torch.linspace(0.5, 1.0, model.num_units)).all()  # what is kept makes the sum larger


def test_scores_that_diverge_are_named() -> None:
    evidence = frozen_of("llama", "weight")
    with masked(evidence, groups_of(evidence.model, "heads"), "weight") as model:
        how = StraightThrough(KeptUnits(model.sizes, 0.5, "global"))

        def objective(number: int, batch: object) -> torch.Tensor:
            return model.wanted["model.layers.0.self_attn.o_proj.weight"].sum() * float("inf")

        with pytest.raises(
            UnitError, match=r"After step 0 the score of unit \d+ is NaN or infinite. Lower the learning r"
        ):
            learn(model, evidence, torch.ones(model.num_units), how, objective, Descent(2, 0.1, "sgd"))


def test_kept_units_stand_before_all_others() -> None:
    evidence = frozen_of("bert", "weight")
    with masked(evidence, groups_of(evidence.model, "heads"), "weight") as model:
        scores = torch.tensor([5.0, 6.0, 7.0, 8.0, 1.0, 2.0, 3.0, 4.0])
        mask = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1]).bool()
        entries = list(mask_scores(model, scores, mask, {"twice": 2 * scores}))
    assert [entry.group.num_units for entry in entries] == [4, 4]
    order = np.argsort(-np.concatenate([entry.score for entry in entries]))
    assert order.tolist() == [3, 2, 7, 6, 1, 0, 5, 4]
    assert entries[1].columns["twice"].tolist() == [2.0, 4.0, 6.0, 8.0]
    assert entries[1].columns["kept"].tolist() == [0.0, 0.0, 1.0, 1.0]
