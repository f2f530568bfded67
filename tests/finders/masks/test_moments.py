"""Moment matching: which moments, of what, and that nobody reads labels; the generator stands in tests/recipes."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_tasks import matrices, perceptron

from ks_lottery.errors import DataError, OptionError, UnitError
from ks_lottery.finders.masks.frozen import Frozen
from ks_lottery.finders.masks.masked import masked
from ks_lottery.finders.masks.moment_features import (
    Moments,
    MomentTargets,
    data_moments,
    hidden_features,
    moments_of,
    wanted_moments,
)
from ks_lottery.finders.masks.moments import LearntAverage, MomentMatching, moment_gap, moment_gaps, squared
from tests.finders.saliency.models import MODELS, batches_for, groups_of
from tests.tiny_models import tiny_llama
from tests.units.models import tiny

FEW: dict[str, Any] = {"density": 0.5, "steps": 6, "learning_rate": 0.05}


def frozen(case: str = "llama", sizes: tuple[int, ...] = (3, 2), **options: Any) -> Frozen:
    return Frozen(MODELS[case]().requires_grad_(False), batches_for(case, sizes), **options)


def changed(evidence: Frozen, change: Any) -> Frozen:
    return Frozen(evidence.model, [change(dict(batch)) for batch in evidence.batches], after=evidence.after)


def scores(method: MomentMatching, evidence: Frozen, units: str = "neurons") -> np.ndarray:
    entries = method.score(groups_of(evidence.model, units), evidence)
    return np.concatenate([entry.columns["score"] for entry in entries])


def gap_under(evidence: Frozen, kind: Any, units: str, mask: Any) -> float:
    """Mean gap of moments between the model and its dense self, over the batches."""
    with masked(evidence, groups_of(evidence.model, units), kind) as model:
        wanted = list(wanted_moments(evidence, hidden_features))
        model.write(torch.as_tensor(mask, dtype=torch.float32))
        with torch.no_grad():
            found = [moments_of(hidden_features(evidence.model, batch)) for batch in evidence.moved()]
    return float(np.mean([moment_gap(one, other) for one, other in zip(wanted, found, strict=True)]))


class TestMoments:
    @given(st.integers(2, 9), st.integers(1, 4), st.floats(-1e3, 1e3), st.integers(0, 99))
    def test_they_are_mean_and_sample_variance(self, rows: int, width: int, offset: float, seed: int) -> None:
        values = np.random.default_rng(seed).normal(offset, 2.0, (rows, width))
        (found,) = moments_of([torch.from_numpy(values)])
        np.testing.assert_allclose(found.mean, values.mean(0), rtol=1e-9)
        np.testing.assert_allclose(found.variance, values.var(0, ddof=1), rtol=1e-7)

    @given(st.lists(st.integers(1, 5), min_size=2, max_size=5), st.sampled_from([0.0, 1e6]), st.integers(0, 99))
    def test_those_of_data_do_not_depend_on_its_batches(self, sizes: list[int], offset: float, seed: int) -> None:
        values = torch.from_numpy(np.random.default_rng(seed).normal(offset, 2.0, (sum(sizes), 3)))
        (found,) = data_moments([part] for part in values.split(sizes))
        (whole,) = moments_of([values])
        torch.testing.assert_close(found.mean, whole.mean)
        torch.testing.assert_close(found.variance, whole.variance, rtol=1e-6, atol=1e-6)

    def test_the_gap_is_that_of_all_features(self) -> None:
        one = [Moments(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0])), Moments(torch.ones(2), torch.ones(2))]
        other = [Moments(torch.tensor([1.0, 4.0]), torch.tensor([1.0, 2.0])), Moments(torch.ones(2), torch.ones(2))]
        assert moment_gap(one, other) == 4 / 4 + 1 / 4
        assert float(squared(moment_gaps(one, other))) == 5.0
        assert moment_gap(one, one) == 0.0

    @pytest.mark.parametrize("factor", [0.01, 100.0])
    def test_relative_gaps_do_not_know_the_scale_of_a_layer(self, factor: float) -> None:
        draws = [torch.randn(20, 3, dtype=torch.float64) for _ in range(2)]
        gaps = moment_gaps(*(moments_of([draw]) for draw in draws), relative=True)
        scaled = moment_gaps(*(moments_of([factor * draw]) for draw in draws), relative=True)
        for one, two in zip(gaps, scaled, strict=True):
            torch.testing.assert_close(one, two)
        doubled = moment_gaps(*(moments_of([torch.cat([draw, draw], 1)]) for draw in draws), relative=True)
        torch.testing.assert_close(squared(doubled), squared(gaps))

    def test_what_has_none_is_refused(self) -> None:
        with pytest.raises(DataError, match=r"layer 1 have shape \(1, 4\), but a variance needs .* Give larger batch"):
            moments_of([torch.ones(2, 4), torch.ones(1, 4)])
        with pytest.raises(DataError, match=r"layer 0 have shape \(2, 3, 4\)"):
            moments_of([torch.ones(2, 3, 4)])
        with pytest.raises(DataError, match="Moments of 1 rows of features: a variance needs at least two"):
            data_moments([[torch.ones(1, 4)]])
        with pytest.raises(DataError, match=r"targets are moments of layers of \[\(2,\)\] features, .* \[\(3,\)\]"):
            moment_gaps(moments_of([torch.ones(4, 2)]), moments_of([torch.ones(4, 3)]))


class TestLearntAverage:
    def test_its_fixed_point_is_the_gap(self) -> None:
        gaps = [torch.tensor([0.3, -0.2]), torch.tensor([0.05])]
        average = LearntAverage(1e-2)
        for _ in range(600):
            average(gaps)
        for found, gap in zip(average.averages, gaps, strict=True):
            torch.testing.assert_close(found, gap, atol=1e-4, rtol=1e-3)

    def test_there_its_loss_has_half_the_gradient_of_the_direct_one(self) -> None:
        gap = torch.tensor([0.3, -0.2], requires_grad=True)
        average = LearntAverage(1e-2)
        for _ in range(600):
            loss = average([gap])
        (linear,) = torch.autograd.grad(loss, gap)
        (direct,) = torch.autograd.grad(squared([gap]), gap)
        torch.testing.assert_close(2 * linear, direct, atol=1e-3, rtol=1e-2)

    def test_its_first_step_is_the_rate(self) -> None:
        average = LearntAverage(1e-5)
        average([torch.tensor([0.3, -0.2])])
        torch.testing.assert_close(average.averages[0], torch.tensor([1e-5, -1e-5]))


class TestFeatures:
    def test_they_are_all_hidden_states_and_the_logits(self) -> None:
        evidence = frozen()
        features = hidden_features(evidence.model, evidence.batches[0])
        output = evidence.model(evidence.batches[0]["input_ids"], output_hidden_states=True)
        assert [tuple(one.shape) for one in features] == [(27, 32)] * 3 + [(27, 64)]
        for one, state in zip(features, [*output.hidden_states, output.logits], strict=True):
            assert torch.equal(one, state.flatten(0, 1))

    def test_padding_does_not_count(self) -> None:
        evidence = frozen()
        batch = dict(evidence.batches[0])
        padded = {name: torch.nn.functional.pad(batch[name], (0, 4)) for name in ("input_ids", "attention_mask")}
        for one, other in zip(
            hidden_features(evidence.model, batch), hidden_features(evidence.model, padded), strict=True
        ):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)

    def test_an_encoder_decoder_has_those_of_both(self) -> None:
        model = tiny("bart")
        ids = torch.randint(3, 20, (2, 5))
        features = hidden_features(model, {"input_ids": ids, "decoder_input_ids": ids[:, :3], "labels": None})
        assert {len(one) for one in features} == {10, 6}

    def test_a_model_without_hidden_states_is_refused(self) -> None:
        model = perceptron().requires_grad_(False)
        evidence = Frozen(model, [{"x": torch.ones(2, 40)}])
        with pytest.raises(DataError, match=r"Perceptron gives no hidden states .* features=\.\.\.\) a function"):
            list(MomentMatching(**FEW).score(matrices(model), evidence))


@pytest.mark.parametrize("case", MODELS)
@pytest.mark.parametrize("kind", ["weight", "update"])
class TestLabelFree:
    def method(self, kind: Any) -> MomentMatching:
        return MomentMatching(kind=kind, **FEW)

    def evidence(self, case: str) -> Frozen:
        return frozen(case, after=MODELS[case]().apply(_moved))

    def test_batches_without_labels_give_the_same_scores(self, kind: str, case: str) -> None:
        evidence = self.evidence(case)
        bare = changed(evidence, lambda batch: {name: value for name, value in batch.items() if name != "labels"})
        assert np.array_equal(scores(self.method(kind), evidence), scores(self.method(kind), bare))

    def test_permuted_labels_give_the_same_scores(self, kind: str, case: str) -> None:
        evidence = self.evidence(case)
        other = changed(evidence, lambda batch: {**batch, "labels": batch["labels"].flip(0)})
        assert np.array_equal(scores(self.method(kind), evidence), scores(self.method(kind), other))

    def test_its_mask_is_nearer_to_the_dense_moments_than_where_it_began(self, kind: str, case: str) -> None:
        evidence = self.evidence(case)
        method = MomentMatching(kind=kind, density=0.5, steps=40, learning_rate=0.05)  # type: ignore[arg-type]
        learnt = np.concatenate(
            [entry.columns["kept"] for entry in method.score(groups_of(evidence.model, "weights"), evidence)]
        )
        start = MomentMatching(kind=kind, density=0.5, steps=1, learning_rate=1e-9)  # type: ignore[arg-type]
        first = np.concatenate(
            [entry.columns["kept"] for entry in start.score(groups_of(evidence.model, "weights"), evidence)]
        )
        assert learnt.sum() == first.sum()
        assert gap_under(evidence, kind, "weights", np.ones_like(learnt)) == 0.0
        assert gap_under(evidence, kind, "weights", learnt) < 0.6 * gap_under(evidence, kind, "weights", first)


def test_its_passes_are_counted() -> None:
    evidence = frozen()
    scores(MomentMatching(density=0.5, steps=4), evidence)
    assert (evidence.passes.forward, evidence.passes.backward) == (5 + 10, 10)


def test_targets_of_data_are_the_same_for_every_batch() -> None:
    evidence = frozen()
    (one, _) = wanted_moments(evidence, hidden_features)
    given_targets = MomentTargets(evidence.model, evidence.batches, targets=one)
    first, second = wanted_moments(given_targets, hidden_features)
    assert all(torch.equal(a.mean, b.mean) for a, b in zip(first, second, strict=True))
    assert given_targets.details()["targets"] == "data"
    assert MomentTargets(evidence.model, evidence.batches).details()["targets"] == "the unmasked model"


def test_features_that_no_unit_decides_are_refused() -> None:
    model = tiny_llama().requires_grad_(False)
    evidence = MomentTargets(
        model,
        batches_for("llama"),
        features=lambda model, batch: [model.model.embed_tokens(batch["input_ids"]).flatten(0, 1)],
    )
    with pytest.raises(UnitError, match="The loss of batch 0 depends on none of"):
        scores(MomentMatching(**FEW), evidence)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(OptionError, match=r"'moments', average_rate=0.0: must lie between 0 and 1"):
        MomentMatching(average_rate=0.0)
    with pytest.raises(OptionError, match=r"'moments', density=1.0: must lie between 0 and 1"):
        MomentMatching(density=1.0)
    with pytest.raises(OptionError, match="steps=0: a mask is learnt in at least 1 step"):
        MomentMatching(steps=0)


def _moved(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for value in module.parameters(recurse=False):
            value.mul_(1.5)
