"""SNIP, gradient norm, Fisher and movement beside plain autograd, and what their papers promise of them."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import GPT2Config, GPT2LMHeadModel

from ks_lottery.errors import OptionError, UnitError
from ks_lottery.finders.base import finder
from ks_lottery.finders.saliency.batches import Batches, own_loss
from ks_lottery.finders.saliency.movement import Movement
from ks_lottery.finders.search import find_ticket
from ks_lottery.finders.select import Density
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.weights import Weights
from tests.finders.saliency.models import chain, every_weight, evidence_of, mean_gradients, scores_of, tiny_bert
from tests.tiny_models import tiny_llama


def classified(model: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(model(batch["x"]), batch["y"])


def labelled(examples: int, inputs: int, classes: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(examples, inputs, dtype=torch.float64, generator=generator)
    return {"x": x, "y": torch.randint(classes, (examples,), generator=generator)}


def tiny_gpt2(layers: int = 2, seed: int = 0) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=50, n_positions=16, n_embd=32, n_layer=layers, n_head=4, bos_token_id=0, eos_token_id=0
    )
    return GPT2LMHeadModel(config)


def test_snip_is_the_gradient_of_a_mask() -> None:
    model, batch = chain(8, 16, 12, 3, bias=True), labelled(64, 8, 3)
    masks = {name: torch.ones_like(value, requires_grad=True) for name, value in model.named_parameters()}
    masked = {name: mask * model.get_parameter(name).detach() for name, mask in masks.items()}
    loss = nn.functional.cross_entropy(functional_call(model, masked, (batch["x"],)), batch["y"])
    by_mask = torch.autograd.grad(loss, list(masks.values()))
    entries = finder("snip").score(every_weight(model), Batches(model, [batch], classified))
    for entry, gradient in zip(entries, by_mask, strict=True):
        np.testing.assert_allclose(entry.score, gradient.abs().numpy().ravel(), rtol=1e-12, atol=1e-18)


@pytest.mark.parametrize("case", ["llama", "bert"])
@pytest.mark.parametrize("units", ["heads", "neurons", "weights"])
def test_units_sum_the_scores_of_their_weights(units: str, case: str) -> None:
    evidence = evidence_of(case)
    gradients = mean_gradients(evidence)
    for entry in scores_of(finder("snip"), evidence, units):
        expected = sum(
            slab.take(gradients[slab.parameter] * evidence.model.get_parameter(slab.parameter).detach(), np.arange(n))
            .abs()
            .sum(dim=1)
            for slab in entry.group.slabs
            for n in (entry.group.num_units,)
        )
        np.testing.assert_allclose(entry.score, expected, rtol=1e-4, atol=1e-9)
    for entry in scores_of(finder("gradient"), evidence, units):
        squares = sum(
            slab.take(gradients[slab.parameter], np.arange(entry.group.num_units)).square().sum(dim=1)
            for slab in entry.group.slabs
        )
        np.testing.assert_allclose(entry.score, squares.sqrt(), rtol=1e-4, atol=1e-9)


def test_fisher_squares_the_gradient_of_each_batch() -> None:
    evidence = evidence_of("bert")
    single = [mean_gradients(Batches(tiny_bert(), [batch])) for batch in evidence.batches]
    for entry in scores_of(finder("fisher"), evidence, "weights"):
        expected = sum(gradients[entry.group.name].square() for gradients in single)
        np.testing.assert_allclose(entry.score, expected.numpy().ravel(), rtol=1e-4, atol=1e-12)


def test_an_identity_block_scores_exactly_zero() -> None:
    model = tiny_gpt2(layers=4)
    tokens = torch.randint(50, (32, 12), generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(10):
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    block = model.transformer.h[2]
    with torch.no_grad():
        for projection in (block.attn.c_proj, block.mlp.c_proj):
            projection.weight.zero_()
            projection.bias.zero_()
    entries = scores_of(finder("snip"), Batches(model, [{"input_ids": tokens, "labels": tokens}]), "layers")
    assert [entry.score[0] == 0.0 for entry in entries] == [False, False, True, False]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_step_along_the_largest_gradients_lowers_the_loss_as_predicted(seed: int) -> None:
    model = tiny_gpt2(seed=seed).eval()
    half = torch.randint(50, (32, 8), generator=torch.Generator().manual_seed(seed))
    tokens = torch.cat([half, half], dim=1)
    evidence = Batches(model, [{"input_ids": tokens, "labels": tokens}])
    gradients = mean_gradients(evidence)
    ticket = find_ticket(model, units="weights", finder="gradient", selector=Density(0.01), evidence=evidence)
    largest = {name: units.copy() for name, units in ticket.indices.items()}
    drop = {"gradient": dropped(model, evidence, gradients, largest)}
    generator = np.random.default_rng(seed)
    chance = {name: generator.permutation(gradients[name].numel())[: len(i)] for name, i in largest.items()}
    drop["chance"] = dropped(model, evidence, gradients, chance)
    predicted = sum(1e-3 * gradients[name].flatten()[i].abs().sum().item() for name, i in largest.items())
    assert drop["gradient"] == pytest.approx(predicted, rel=0.05)
    assert drop["gradient"] > 3 * drop["chance"]  # chance gets as many weights of each matrix


def dropped(model: nn.Module, evidence: Batches, gradients: Any, indices: Any) -> float:
    """How much the loss falls by a step of 1e-3 along the signs of some gradients."""
    (batch,) = evidence.batches
    with torch.no_grad():
        before = own_loss(model, batch).double()
        kept = {name: model.get_parameter(name).clone() for name in indices}
        for name, chosen in indices.items():
            step = torch.zeros(gradients[name].numel())
            step[chosen] = 1e-3 * gradients[name].flatten()[chosen].sign()
            model.get_parameter(name).sub_(step.view_as(gradients[name]))
        after = own_loss(model, batch).double()
        for name, values in kept.items():
            model.get_parameter(name).copy_(values)
    return float(before - after)


@pytest.mark.parametrize(("kind", "rate"), [("weight", 0.0), ("weight", 0.3), ("update", 0.3)])
def test_movement_is_what_a_straight_through_score_would_learn(kind: Kind, rate: float) -> None:
    """dL/dS = dL/d(W * M) * W, so after SGD from 0 the score is -sum of g * w over the steps."""
    evidence = evidence_of("llama")
    entries = scores_of(Movement(kind=kind, learning_rate=rate), evidence, Weights(only=("*.mlp.*",)))
    model = tiny_llama().eval()
    names = [entry.group.name for entry in entries]
    start = {name: model.get_parameter(name).detach().clone() for name in names}
    expected = {name: torch.zeros_like(start[name]) for name in names}
    for batch in evidence.batches:
        gradients = mean_gradients(Batches(model, [batch]))
        with torch.no_grad():
            for name in names:
                weight = model.get_parameter(name)
                expected[name] -= gradients[name] * (weight - start[name] if kind == "update" else weight)
                weight -= rate * gradients[name]
    for entry in entries:
        np.testing.assert_allclose(entry.score, expected[entry.group.name].numpy().ravel(), rtol=2e-4, atol=1e-9)
        assert entry.changed.any()


def test_movement_that_cannot_be_is_refused() -> None:
    with pytest.raises(OptionError, match=r"Movement\(kind='both'\): must be weight or update"):
        Movement(kind="both")  # type: ignore[arg-type]
    for rate in (-1.0, float("nan"), float("inf")):
        with pytest.raises(OptionError, match="must be 0 or a positive number"):
            Movement(learning_rate=rate)
    with pytest.raises(OptionError, match=r"nothing moves, so every score would be 0. Give a learning rate"):
        Movement(kind="update")


def test_weights_are_restored_after_a_step_that_diverges() -> None:
    evidence = evidence_of("llama")
    before = {key: value.clone() for key, value in evidence.model.state_dict().items()}
    with pytest.raises(UnitError, match=r"loss of batch 1 is (nan|inf).*NaN or infinite"):
        scores_of(Movement(learning_rate=1e38), evidence, "weights")
    assert all(torch.equal(value, before[key]) for key, value in evidence.model.state_dict().items())


def test_a_quantised_parameter_is_refused() -> None:
    model, batch = chain(4, 3), labelled(2, 4, 3)
    model[0].weight = nn.Parameter(torch.ones(3, 4, dtype=torch.int8), requires_grad=False)
    with pytest.raises(
        UnitError, match=r"'0.weight' holds torch.int8 and has no gradient. Load the model without quan"
    ):
        list(finder("snip").score(every_weight(model), Batches(model, [batch], classified)))
