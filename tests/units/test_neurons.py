"""Neurons: a unit is what a gate on one hidden value switches off, in every architecture; sizes have to agree."""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ks_lottery.errors import UnitError
from ks_lottery.units.granularity import granularity
from ks_lottery.units.layout import ModelLayout
from ks_lottery.units.neurons import Neurons
from ks_lottery.units.slab import Slab
from ks_lottery.units.weights import Weights
from tests.units.models import CASES, changed, gated, layout_of, outputs, read_by, tiny, zeroed

EXPERTS = {"mixtral"}
SEPARATE = [case for case in CASES if case not in EXPERTS]


@pytest.mark.parametrize("case", SEPARATE)
def test_gating_a_neuron_equals_zeroing_its_slabs(case: str) -> None:
    for group in Neurons(only=("*layers.1.*",)).groups(layout_of(case)):
        module = tiny(case).get_submodule(group.slabs[-1].parameter.removesuffix(".weight"))
        assert read_by(case, module).shape[-1] == group.num_units
        for unit in (0, 5, group.num_units - 1):
            gate = gated(case, module, slice(unit, unit + 1))
            for slabs in (group.slabs[-1:], group.slabs[:-1], group.slabs):
                torch.testing.assert_close(zeroed(case, slabs, unit), gate, rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", SEPARATE)
def test_the_slabs_of_a_neuron_decide_its_value_and_no_other(case: str) -> None:
    for group in Neurons(only=("*layers.1.*",)).groups(layout_of(case)):
        module = tiny(case).get_submodule(group.slabs[-1].parameter.removesuffix(".weight"))
        before = read_by(case, module)
        for unit in range(group.num_units):
            units = np.array([unit])
            with changed(case) as parameters:
                for slab in group.slabs[:-1]:
                    parameter = parameters[slab.parameter]
                    slab.put(parameter, units, 1.0 + slab.take(parameter, units))
                moved = (read_by(case, module) != before).flatten(0, -2).any(0)
            assert not moved[torch.arange(len(moved)) != unit].any()


def reference_experts(gate: Callable[[int, Tensor], Tensor]) -> Callable[..., Tensor]:
    """Mixtral's experts, one by one, with `gate(expert, hidden)` before the down projection."""

    def forward(self: nn.Module, hidden: Tensor, chosen: Tensor, shares: Tensor) -> Tensor:
        result = torch.zeros_like(hidden)
        for expert, (gate_up, down) in enumerate(zip(self.gate_up_proj, self.down_proj, strict=True)):
            first, second = (hidden @ gate_up.T).chunk(2, dim=-1)
            share = (shares * (chosen == expert)).sum(-1, keepdim=True)
            result += share * (gate(expert, nn.functional.silu(first) * second) @ down.T)
        return result

    return forward


@contextmanager
def gate_experts(module: nn.Module, gate: Callable[[int, Tensor], Tensor]):
    module.forward = reference_experts(gate).__get__(module)
    try:
        yield
    finally:
        del module.forward


def test_gating_a_neuron_of_an_expert_equals_zeroing_its_slabs() -> None:
    experts = tiny("mixtral").get_submodule("model.layers.1.mlp.experts")
    before = outputs("mixtral")
    with gate_experts(experts, lambda _, hidden: hidden):
        torch.testing.assert_close(outputs("mixtral"), before, rtol=0, atol=1e-6)
    groups = Neurons(only=("layers.1.*",)).groups(layout_of("mixtral"))
    assert [group.name for group in groups] == [f"layers.1.experts.{expert}.neurons" for expert in range(3)]
    moved = []
    for number, group in enumerate(groups):
        for unit in (0, 5, 11):

            def gate(expert: int, hidden: Tensor, of: int = number, silent: int = unit) -> Tensor:
                return hidden * (torch.arange(12) != silent) if expert == of else hidden

            with gate_experts(experts, gate):
                expected = outputs("mixtral")
            torch.testing.assert_close(zeroed("mixtral", group.slabs[-1:], unit), expected, rtol=0, atol=1e-6)
            torch.testing.assert_close(zeroed("mixtral", group.slabs[:-1], unit), expected, rtol=0, atol=1e-6)
            moved.append((expected - before).abs().max())
    assert min(moved) > 1e-5


@pytest.mark.parametrize(
    ("case", "slabs"),
    [
        ("llama with biases", [
            Slab("model.layers.0.mlp.gate_proj.weight", 0), Slab("model.layers.0.mlp.gate_proj.bias", 0),
            Slab("model.layers.0.mlp.up_proj.weight", 0), Slab("model.layers.0.mlp.up_proj.bias", 0),
            Slab("model.layers.0.mlp.down_proj.weight", 1),
        ]),
        ("phi3", [
            Slab("model.layers.0.mlp.gate_up_proj.weight", 0),
            Slab("model.layers.0.mlp.gate_up_proj.weight", 0, start=12),
            Slab("model.layers.0.mlp.down_proj.weight", 1),
        ]),
        ("gpt2", [
            Slab("transformer.h.0.mlp.c_fc.weight", 1), Slab("transformer.h.0.mlp.c_fc.bias", 0),
            Slab("transformer.h.0.mlp.c_proj.weight", 0),
        ]),
        ("mixtral", [
            Slab("model.layers.0.mlp.experts.gate_up_proj", 1, lead=(0,)),
            Slab("model.layers.0.mlp.experts.gate_up_proj", 1, start=12, lead=(0,)),
            Slab("model.layers.0.mlp.experts.down_proj", 2, lead=(0,)),
        ]),
        ("t5", [
            Slab("encoder.block.0.layer.1.DenseReluDense.wi.weight", 0),
            Slab("encoder.block.0.layer.1.DenseReluDense.wo.weight", 1),
        ]),
        ("gated t5", [
            Slab("encoder.block.0.layer.1.DenseReluDense.wi_0.weight", 0),
            Slab("encoder.block.0.layer.1.DenseReluDense.wi_1.weight", 0),
            Slab("encoder.block.0.layer.1.DenseReluDense.wo.weight", 1),
        ]),
    ],
)  # fmt: skip
def test_slabs_in_order(case: str, slabs: list[Slab]) -> None:
    assert Neurons().groups(layout_of(case))[0].slabs == tuple(slabs)


def without(layout: ModelLayout, part: str) -> ModelLayout:
    return replace(layout, shapes={name: shape for name, shape in layout.shapes.items() if part not in name})


def test_projections_that_do_not_fit_each_other() -> None:
    up, gate_up, down = "mlp.up_proj.weight", "mlp.gate_up_proj.weight", "mlp.experts.down_proj"
    for case, parameter, shape, message in (
        ("llama", up, (11, 16), "has 11 outputs, but .*down_proj.* reads 12 neurons. "),
        ("phi3", gate_up, (12, 16), "gates and ups need twice as many"),
        ("mixtral", down, (16, 12), r"should be a \[experts, outputs, inputs\] matrix"),
    ):
        layout = layout_of(case)
        with pytest.raises(UnitError, match=message):
            Neurons().groups(replace(layout, shapes={**layout.shapes, f"model.layers.1.{parameter}": shape}))


def test_blocks_without_a_known_feed_forward_sublayer() -> None:
    with pytest.raises(UnitError, match="no feed-forward neurons at model.layers.0.mlp.gate_proj/mlp.up_proj/"):
        Neurons().groups(without(layout_of("llama"), "gate_proj"))
    with pytest.raises(UnitError, match=r"wi_0/.*wi_1/.*wo or layer.1.DenseReluDense.wi/.*wo; the block has layer.0"):
        Neurons().groups(without(layout_of("t5"), ".wi."))


def test_experts_as_files_store_them() -> None:
    layout = without(layout_of("mixtral"), "mlp.experts")
    stored = {f"model.layers.0.block_sparse_moe.experts.0.w{number}.weight": (12, 16) for number in (1, 2, 3)}
    folder = replace(layout, shapes={**layout.shapes, **stored})
    assert len(granularity("heads").groups(folder)) == len(granularity("layers").groups(folder)) == 2
    for name in ("neurons", "matrix_rows", "weights"):
        with pytest.raises(UnitError, match=r"apart \('model.layers.0.block_sparse_moe.* Open the live model instead"):
            granularity(name).groups(folder)
    with pytest.raises(UnitError, match="files keep parts of a parameter apart"):
        Weights(only=("*.w1.*",)).groups(folder)
    assert Weights(only=("*.k_proj.*",)).groups(folder)
