"""Gates in front of output and down projections, in every architecture of the table."""

import numpy as np
import pytest
import torch

from ks_lottery.errors import UnitError
from ks_lottery.units.gates import Gates
from ks_lottery.units.granularity import granularity
from ks_lottery.units.slab import UnitGroup
from tests.units.models import CASES, changed, layout_of, outputs, tiny, zeroed

GATED = [(case, units) for case in CASES for units in ("heads", "neurons") if (case, units) != ("mixtral", "neurons")]


def groups_of(case: str, units: str) -> tuple[UnitGroup, ...]:
    return tuple(granularity(units).groups(layout_of(case)))


def random_gates(groups: tuple[UnitGroup, ...]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {group.name: torch.rand(group.num_units, generator=generator) for group in groups}


@pytest.mark.parametrize(("case", "units"), GATED)
class TestEveryArchitecture:
    def test_open_gates_change_nothing(self, case: str, units: str) -> None:
        groups = groups_of(case, units)
        whole = outputs(case)
        with Gates(tiny(case), groups).installed({group.name: torch.ones(group.num_units) for group in groups}):
            assert torch.equal(outputs(case), whole)

    def test_a_closed_gate_is_a_unit_without_output_weights(self, case: str, units: str) -> None:
        groups = groups_of(case, units)
        gates, whole = Gates(tiny(case), groups), outputs(case)
        with gates.installed({group.name: torch.zeros(group.num_units) for group in groups}):
            assert not torch.equal(outputs(case), whole)
        for group in (groups[0], groups[-1]):
            gate = torch.ones(group.num_units)
            gate[1] = 0.0
            with gates.installed({group.name: gate}):
                closed = outputs(case)
            torch.testing.assert_close(closed, zeroed(case, group.slabs[-1:], 1), rtol=1e-5, atol=1e-6)
        assert torch.equal(outputs(case), whole)

    def test_folding_is_gating(self, case: str, units: str) -> None:
        groups = groups_of(case, units)
        gates, values = Gates(tiny(case), groups), random_gates(groups)
        with gates.installed(values):
            gated = outputs(case)
        with changed(case):
            gates.fold(values)
            torch.testing.assert_close(outputs(case), gated, rtol=1e-5, atol=1e-5)

    def test_every_example_can_have_its_own(self, case: str, units: str) -> None:
        groups = groups_of(case, units)
        gates, values = Gates(tiny(case), groups), random_gates(groups)
        with gates.installed(values):
            gated = outputs(case)
        with gates.installed({name: torch.stack([torch.ones_like(one), one])[:, None] for name, one in values.items()}):
            each = outputs(case)
        torch.testing.assert_close(each[0], outputs(case)[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(each[1], gated[1], rtol=1e-5, atol=1e-5)


def test_gates_can_be_trained() -> None:
    groups = groups_of("gpt2", "heads")
    model, tokens = tiny("gpt2"), torch.tensor([[3, 7, 5, 11, 4]])
    values = {group.name: torch.nn.Parameter(torch.ones(group.num_units)) for group in groups}
    optimizer = torch.optim.SGD(list(values.values()), lr=0.1)
    losses = []
    installed = Gates(model, groups).installed(values)
    for _ in range(5):
        loss = model(input_ids=tokens, labels=tokens).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    installed.close()
    model.zero_grad()
    assert losses == sorted(losses, reverse=True)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_the_derivative_by_a_gate_is_a_directional_derivative() -> None:
    """The sum over all gates is the change of the loss when all of them move together."""
    groups, model = groups_of("llama", "neurons"), tiny("llama")
    tokens = torch.tensor([[3, 7, 5, 11, 4]])
    gates = Gates(model, groups)

    def loss(size: float) -> tuple[torch.Tensor, list[torch.Tensor]]:
        values = {group.name: torch.full((group.num_units,), size, requires_grad=True) for group in groups}
        with gates.installed(values):
            return model(input_ids=tokens, labels=tokens).loss, list(values.values())

    total, values = loss(1.0)
    slope = sum(gradient.sum() for gradient in torch.autograd.grad(total, values))
    difference = (loss(1 + 1e-2)[0] - loss(1 - 1e-2)[0]) / 2e-2
    assert float(slope) == pytest.approx(float(difference.detach()), rel=1e-2)


def test_what_has_no_gates_is_refused() -> None:
    with pytest.raises(UnitError, match=r"'layers.0.experts.0.neurons' are those of experts, fused in .*units='heads'"):
        Gates(tiny("mixtral"), groups_of("mixtral", "neurons"))
    for units in ("layers", "matrix_rows", "weights", "token_rows"):
        with pytest.raises(UnitError, match=r"is no group of attention heads or .* Use units='heads' or"):
            Gates(tiny("gpt2"), groups_of("gpt2", units))
    with pytest.raises(UnitError, match="is no group of attention heads"):
        Gates(tiny("llama"), groups_of("gpt2", "heads"))


def test_gates_of_another_form_are_refused() -> None:
    groups = groups_of("llama", "heads")
    gates = Gates(tiny("llama"), groups)
    with pytest.raises(
        UnitError, match=r"A gate is given for 'layers.9.heads', but the gated groups are layers.0.head"
    ):
        gates.installed({"layers.9.heads": torch.ones(2)})
    for shape in ((3,), (2, 2), (2, 2, 2), ()):
        with pytest.raises(UnitError, match=r"has shape \(.*\); with 2 units it must be \[units\] or \[examples, 1, u"):
            gates.installed({"layers.0.heads": torch.ones(shape)})
    with pytest.raises(UnitError, match=r"has shape \(3, 1, 2\); with 2 units it must be \[units\]\."):
        gates.fold({"layers.0.heads": torch.ones(3, 1, 2)})
    with (
        gates.installed({"layers.0.heads": torch.ones(3, 1, 2)}),
        pytest.raises(
            UnitError, match=r"gates for 3 examples, but 'model.layers.0.self_attn.o_proj.weight' reads .*2, 5"
        ),
    ):
        outputs("llama")
    assert np.isfinite(outputs("llama").numpy()).all()
