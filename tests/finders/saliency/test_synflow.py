"""SynFlow: conservation, no collapse, exact nested tickets, and the flow of feed-forward sublayers."""

import numpy as np
import pytest
import torch
from torch import nn
from toy_tasks import matrices, perceptron

from ks_lottery.errors import DataError, OptionError, UnitError
from ks_lottery.finders.saliency.batches import Batches
from ks_lottery.finders.saliency.flow import feed_forward_flow, network_flow
from ks_lottery.finders.saliency.synflow import SynFlow
from ks_lottery.finders.select import Density, largest
from ks_lottery.units.weights import Weights
from tests.finders.saliency.models import batches_for, chain, every_weight, evidence_of, groups_of, scores_of
from tests.tiny_models import tiny_llama

MLP = Weights(only=("*.mlp.*_proj.weight",))


def evidence_for(model: nn.Module, inputs: int) -> Batches:
    return Batches(model, [{"x": torch.randn(3, inputs, dtype=torch.float64)}])


def kept_per_layer(model: nn.Module, inputs: int, iterations: int, density: float) -> list[int]:
    groups = every_weight(model)
    scores = [entry.score for entry in SynFlow(density, iterations).score(groups, evidence_for(model, inputs))]
    count = round(density * sum(map(len, scores)))
    return [len(units) for units in largest(scores, [np.ones(len(one), dtype=bool) for one in scores], count)]


def test_every_layer_of_a_chain_holds_the_same_flow() -> None:
    model = chain(20, 30, 7, 10)
    values = network_flow(evidence_for(model, 20), [name for name, _ in model.named_parameters()]).scores()
    sums = [float(value.sum()) for value in values.values()]
    assert sums == pytest.approx([sums[0]] * 3, rel=1e-10)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_many_rounds_empty_no_layer_but_magnitude_does(seed: int) -> None:
    model = chain(20, 400, 6, 400, 10, seed=seed)
    many = kept_per_layer(model, 20, 100, 0.005)
    assert sum(many) == 84
    assert min(many) > 0
    sizes = [parameter.detach().abs().numpy().ravel() for parameter in model.parameters()]
    magnitude = largest(sizes, [np.ones(len(one), dtype=bool) for one in sizes], 84)
    assert min(map(len, magnitude)) == 0
    assert min(kept_per_layer(model, 20, 1, 0.005)) == 0


def test_any_density_above_the_last_selects_what_survived_until_then() -> None:
    method, evidence = SynFlow(density=0.1, iterations=7), evidence_of("llama")
    entries = scores_of(method, evidence, MLP)
    total = sum(entry.group.num_units for entry in entries)
    assert sorted(np.concatenate([entry.score for entry in entries]) * total) == pytest.approx(range(1, total + 1))
    everything = [np.ones(entry.group.num_units, dtype=bool) for entry in entries]
    for turn in range(1, 8):
        chosen = Density(method.density ** (turn / 7)).select(entries, everything)
        for entry, units in zip(entries, chosen, strict=True):
            assert np.flatnonzero(entry.columns["round"] > turn).tolist() == units.tolist()
    assert (evidence.passes.forward, evidence.passes.backward) == (7, 7)


@pytest.mark.parametrize("case", ["llama", "bert"])
def test_the_flow_of_a_feed_forward_sublayer_is_a_derivative(case: str) -> None:
    model = evidence_of(case).model
    flow = feed_forward_flow(model, groups_of(model, "neurons"))
    values = flow.scores()
    by_block: dict[str, list[str]] = {}
    for name in flow.weights:
        by_block.setdefault(name.partition("layer")[2].split(".")[1], []).append(name)
    assert len(by_block) == 2
    for names in by_block.values():
        *inputs, output = (flow.weights[name].clone().requires_grad_() for name in names)
        hidden = torch.ones(len(inputs[0]), dtype=torch.float64)
        for matrix in inputs:
            hidden = hidden * (matrix @ torch.ones(matrix.shape[1], dtype=torch.float64))
        total = (output @ hidden).sum()
        for name, sizes, gradient in zip(
            names, (*inputs, output), torch.autograd.grad(total, (*inputs, output)), strict=True
        ):
            torch.testing.assert_close(values[name], (sizes * gradient / total).detach())
            assert float(values[name].sum()) == pytest.approx(1.0, rel=1e-12)


def test_no_block_is_emptied_however_small_its_weights() -> None:
    model = tiny_llama()
    with torch.no_grad():
        for parameter in model.model.layers[0].mlp.parameters():
            parameter *= 1e-3
    entries = scores_of(SynFlow(density=0.02), Batches(model, batches_for("llama")), MLP)
    left = [int((entry.columns["round"] > 100).sum()) for entry in entries]
    assert sum(left) == round(0.02 * 6 * 32 * 48)
    assert min(left) > 0


def test_neurons_go_as_a_whole() -> None:
    entries = scores_of(SynFlow(density=0.25, iterations=10), evidence_of("llama"), "neurons")
    assert sum(int((entry.columns["round"] > 10).sum()) for entry in entries) == 24


def test_experts_flow_on_their_own() -> None:
    from tests.units.models import tiny

    model = tiny("mixtral")
    evidence = Batches(model, [{"input_ids": torch.ones(1, 2, dtype=torch.long)}])
    entries = scores_of(SynFlow(density=0.5, iterations=5), evidence, "neurons")
    assert len(entries) == 6
    assert all((entry.columns["round"] > 5).any() for entry in entries)


def test_what_it_cannot_do_is_refused() -> None:
    for density in (0.0, 1.0, float("nan")):
        with pytest.raises(OptionError, match=r"SynFlow\(density=.*must lie between 0 and 1"):
            SynFlow(density)
    with pytest.raises(OptionError, match=r"SynFlow\(iterations=0\): must be at least 1; the paper's is 100"):
        SynFlow(iterations=0)
    with pytest.raises(
        UnitError, match=r"the units hold 'model.layers.0.self_attn.k_proj.weight'. Use units='neurons'"
    ):
        scores_of(SynFlow(), evidence_of("llama"), "weights")
    with pytest.raises(
        UnitError, match=r"No flow passes 'bert.encoder.layer.0.output.dense.bias'. Use units='neurons'"
    ):
        scores_of(SynFlow(), evidence_of("bert"), Weights(only=("*.?.output.dense.*", "*.intermediate.dense.weight")))
    model = chain(4, 3)
    with pytest.raises(DataError, match=r"its batch of tokens holds no floating-point input to shape them by"):
        list(SynFlow().score(every_weight(model), Batches(model, [{"tokens": torch.ones(2, 4, dtype=torch.long)}])))
    with torch.no_grad():
        model[0].weight[0, 0] = float("inf")
    with pytest.raises(UnitError, match=r"A value of '0.weight' is NaN or infinite: the run diverged"):
        list(SynFlow().score(every_weight(model), evidence_for(model, 4)))


def test_a_model_that_is_no_transformer_is_a_whole_network() -> None:
    model = perceptron(0, (3, 4, 2), bias=False).double()
    plain = nn.Sequential(*(part for layer in model.layers for part in (layer, nn.ReLU())))[:-1]
    method = SynFlow(density=0.2, iterations=5)
    found = list(method.score(matrices(model), evidence_for(model, 3)))
    expected = list(method.score(every_weight(plain), evidence_for(plain, 3)))
    assert [entry.group.num_units for entry in found] == [12, 8]
    for entry, other in zip(found, expected, strict=True):
        assert (entry.score == other.score).all()
