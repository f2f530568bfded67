"""GraSP beside finite differences, its temperature, and the attention that it needs."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ks_lottery.errors import DataError, OptionError
from ks_lottery.finders.base import finder
from ks_lottery.finders.saliency.batches import Batches
from ks_lottery.finders.saliency.grasp import GraSP
from ks_lottery.finders.saliency.temperature import TemperedLoss
from tests.finders.saliency.models import batches_for, chain, every_weight, evidence_of, scores_of, tiny_bert
from tests.tiny_models import tiny_llama


def smooth(model: nn.Module, batch: Any) -> Tensor:
    """Cross entropy of a network whose ReLUs are far from their corners."""
    return nn.functional.cross_entropy(torch.tanh(model(batch["x"])), batch["y"])


def test_it_multiplies_weights_with_the_hessian_times_the_gradient() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 3)).double()
    batches = [
        {"x": torch.randn(size, 8, dtype=torch.float64), "y": torch.randint(3, (size,))} for size in (20, 20, 20)
    ]
    evidence = Batches(model, batches, smooth)
    entries = list(GraSP(temperature=None).score(every_weight(model), evidence))
    parameters = list(model.parameters())

    def gradient() -> list[Tensor]:
        return list(torch.autograd.grad(sum(smooth(model, batch) for batch in batches), parameters))

    start, along, step = [value.detach().clone() for value in parameters], gradient(), 1e-5
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            for parameter, at, direction in zip(parameters, start, along, strict=True):
                parameter.copy_(at + sign * step * direction)
        ends.append(gradient())
    for entry, at, ahead, behind in zip(entries, start, *ends, strict=True):
        product = (ahead - behind) / (2 * step)
        np.testing.assert_allclose(entry.score, (at * product).numpy().ravel(), atol=1e-9)


def test_the_gradient_norm_falls_most_without_the_first_units() -> None:
    """Score = w * Hg: dropping w changes |g|^2 / 2 by -w * Hg, to first order."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 3)).double()
    batch = {"x": torch.randn(30, 8, dtype=torch.float64), "y": torch.randint(3, (30,))}
    (entry, *_) = GraSP(temperature=None).score(every_weight(model), Batches(model, [batch], smooth))
    weight = model[0].weight

    def half_squared_norm() -> float:
        gradients = torch.autograd.grad(smooth(model, batch), list(model.parameters()))
        return 0.5 * float(sum(gradient.square().sum() for gradient in gradients))

    whole = half_squared_norm()
    for unit in (int(entry.score.argmax()), int(entry.score.argmin())):
        kept = weight.detach().view(-1)[unit].clone()
        with torch.no_grad():
            weight.view(-1)[unit] *= 1 - 1e-4
        assert 1e4 * (half_squared_norm() - whole) == pytest.approx(-entry.score[unit], rel=1e-2)
        with torch.no_grad():
            weight.view(-1)[unit] = kept


@pytest.mark.parametrize("case", ["llama", "bert"])
def test_torchs_attention_gives_what_eager_attention_gives(case: str) -> None:
    fused, eager = evidence_of(case), evidence_of(case)
    assert fused.model.config._attn_implementation == "sdpa"
    eager.model.set_attn_implementation("eager")  # type: ignore[operator]
    for one, other in zip(scores_of(GraSP(), fused, "heads"), scores_of(GraSP(), eager, "heads"), strict=True):
        np.testing.assert_allclose(one.score, other.score, rtol=2e-3, atol=1e-3 * np.abs(other.score).max())
    assert fused.model.config._attn_implementation == "sdpa"


def test_other_attention_is_switched_with_a_notice(caplog: pytest.LogCaptureFixture) -> None:
    evidence, eager = evidence_of("llama"), evidence_of("llama")
    evidence.model.config._attn_implementation_internal = "flash_attention_2"  # type: ignore[union-attr]
    eager.model.set_attn_implementation("eager")  # type: ignore[operator]
    for one, other in zip(scores_of(GraSP(), evidence, "heads"), scores_of(GraSP(), eager, "heads"), strict=True):
        assert (one.score == other.score).all()
    assert "Attention 'flash_attention_2' has no second derivative; eager attention takes its place" in caplog.text
    assert evidence.model.config._attn_implementation == "flash_attention_2"


def test_attention_that_cannot_be_switched_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = evidence_of("llama")
    evidence.model.config._attn_implementation_internal = "flash_attention_2"  # type: ignore[union-attr]

    def refuse(attention: str) -> None:
        raise ValueError("only flash is built in")

    monkeypatch.setattr(evidence.model, "set_attn_implementation", refuse)
    with pytest.raises(OptionError, match=r"cannot be switched to eager \(only flash is built in\).*=\"eager\""):
        scores_of(GraSP(), evidence, "heads")


def test_absolute_sums_the_sizes() -> None:
    signed = scores_of(GraSP(), evidence_of("llama"), "weights")
    absolute = scores_of(GraSP(absolute=True), evidence_of("llama"), "weights")
    for one, other in zip(signed, absolute, strict=True):
        assert (np.abs(one.score) == other.score).all()
        assert (one.score < 0).any()


@pytest.mark.parametrize("case", ["llama", "bert"])
def test_a_temperature_of_one_is_the_models_own_loss(case: str) -> None:
    evidence = evidence_of(case)
    tempered, model = TemperedLoss(1.0), evidence.model.eval()
    for batch in evidence.batches:
        torch.testing.assert_close(tempered(model, batch), model(**batch).loss)
    plain, warm = (scores_of(GraSP(t), evidence_of(case), "layers") for t in (None, 1.0))
    for one, other in zip(plain, warm, strict=True):
        np.testing.assert_allclose(one.score, other.score, rtol=1e-3)


def test_a_temperature_divides_the_logits() -> None:
    model, (batch, _) = tiny_bert().eval(), batches_for("bert")
    expected = nn.functional.cross_entropy(model(**batch).logits / 200, batch["labels"])
    torch.testing.assert_close(TemperedLoss(200.0)(model, batch), expected)
    model, (batch, _) = tiny_llama().eval(), batches_for("llama")
    logits, labels = model(**batch).logits[:, :-1] / 200, batch["labels"][:, 1:]
    expected = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(TemperedLoss(200.0)(model, batch), expected)


def test_a_temperature_that_cannot_be_put_in_is_refused() -> None:
    for temperature in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(OptionError, match=r"must be positive, or None; the paper's is 200"):
            GraSP(temperature)
    model = chain(4, 3)
    evidence = Batches(model, [{"x": torch.ones(2, 4, dtype=torch.float64), "y": torch.tensor([0, 1])}], smooth)
    with pytest.raises(OptionError, match=r"GraSP\(temperature=200.0\) divides .* Use GraSP\(temperature=None\)"):
        list(finder("grasp").score(every_weight(model), evidence))
    logits, labels = torch.randn(2, 3), torch.tensor([0, 1])

    def regression(**batch: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=logits, loss=torch.tensor(7.0))

    with pytest.raises(OptionError, match=r"no mean cross entropy of its logits of shape \(2, 3\) and labels of"):
        TemperedLoss(200.0)(regression, {"labels": labels})  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"labels of shape \(2, 1\), so no temperature"):
        TemperedLoss(200.0)(regression, {"labels": labels[:, None]})  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"A temperature needs 'labels' in every batch, but a batch has x"):
        TemperedLoss(200.0)(model, {"x": labels})
