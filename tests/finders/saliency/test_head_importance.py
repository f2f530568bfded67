"""The statistic of Michel et al.: gates, dead heads, and the normalisation of layers."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ks_lottery.finders.saliency.batches import Batches
from ks_lottery.finders.saliency.head_importance import HeadImportance
from tests.finders.saliency.models import batches_for, evidence_of, scores_of, tiny_bert
from tests.tiny_models import tiny_llama


def products(model: torch.nn.Module, projection: torch.nn.Module, batch: dict[str, Tensor], units: int) -> Tensor:
    """[examples, units]: sum over positions and width of what a projection reads times its gradient."""
    seen: list[Tensor] = []

    def keep(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        inputs[0].retain_grad()
        seen.append(inputs[0])

    handle = projection.register_forward_pre_hook(keep)
    model.zero_grad()
    model(**batch).loss.backward()
    handle.remove()
    (read,) = seen
    assert read.grad is not None
    return (read * read.grad).detach().unflatten(-1, (units, -1)).sum(dim=(1, 3))


def test_it_is_the_product_of_an_output_and_its_gradient() -> None:
    model = tiny_bert().eval()
    places = [layer.attention.output.dense for layer in model.bert.encoder.layer]  # type: ignore[union-attr]
    evidence = Batches(model, batches_for("bert"))
    expected = [
        sum(len(batch["labels"]) * products(model, place, batch, 4).abs().sum(dim=0) for batch in evidence.batches) / 5
        for place in places
    ]
    for entry, mean in zip(scores_of(HeadImportance(normalised=False), evidence, "heads"), expected, strict=True):
        np.testing.assert_allclose(entry.score, mean, rtol=1e-4, atol=1e-7)


def test_a_kv_group_has_one_gate_for_its_query_heads() -> None:
    model = tiny_llama().eval()
    (batch, _) = batches_for("llama")
    place = model.model.layers[1].self_attn.o_proj
    mean = products(model, place, batch, 2).abs().sum(dim=0)
    *_, entry = scores_of(HeadImportance(normalised=False), Batches(model, [batch]), "heads")
    np.testing.assert_allclose(entry.score, mean, rtol=1e-4, atol=1e-8)


def test_a_dead_head_scores_exactly_zero() -> None:
    model = tiny_bert()
    with torch.no_grad():
        model.bert.encoder.layer[1].attention.output.dense.weight[:, 16:24] = 0.0  # type: ignore[union-attr, index]
    entries = scores_of(HeadImportance(), Batches(model, batches_for("bert")), "heads")
    assert [(entry.score == 0).tolist() for entry in entries] == [[False] * 4, [False, False, True, False]]


@pytest.mark.parametrize("units", ["heads", "neurons"])
def test_layers_are_normalised_unless_asked_otherwise(units: str) -> None:
    evidence = evidence_of("bert")
    for entry in scores_of(HeadImportance(), evidence, units):
        assert np.linalg.norm(entry.score) == pytest.approx(1.0)
        assert entry.score == pytest.approx(
            entry.columns["mean_gradient"] / np.linalg.norm(entry.columns["mean_gradient"])
        )
    for entry in scores_of(HeadImportance(normalised=False), evidence, units):
        assert (entry.score == entry.columns["mean_gradient"]).all()


def test_a_layer_of_dead_heads_scores_zero_and_not_nan() -> None:
    model = tiny_bert()
    with torch.no_grad():
        model.bert.encoder.layer[0].attention.output.dense.weight.zero_()  # type: ignore[union-attr, index]
    first, second = scores_of(HeadImportance(), Batches(model, batches_for("bert")), "heads")
    assert first.score.tolist() == [0.0] * 4
    assert (second.score > 0).all()


def test_splitting_batches_changes_nothing() -> None:
    model, (whole,) = tiny_bert(), batches_for("bert", (6,))
    halves = [{name: value[part] for name, value in whole.items()} for part in (slice(0, 2), slice(2, 6))]
    one = scores_of(HeadImportance(), Batches(model, [whole]), "heads")
    other = scores_of(HeadImportance(), Batches(model, halves), "heads")
    for entry, split in zip(one, other, strict=True):
        np.testing.assert_allclose(entry.score, split.score, rtol=1e-4)
