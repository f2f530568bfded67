"""Single weights: the output is the merged layer's to the bit, the gradient is the dense one's at the chosen places."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ks_lottery.adapter.entries import SAMPLED_DENSITY, entry_pattern, linear_with_entries
from ks_lottery.errors import AdapterError

INPUTS, OUTPUTS = 24, 40
FEW, MANY = 0.03, 0.3


def build(kind: str, bias: bool = True, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    base = Conv1D(OUTPUTS, INPUTS) if kind == "Conv1D" else nn.Linear(INPUTS, OUTPUTS, bias=bias)
    return base.to(dtype).requires_grad_(False)


def draw(density: float, seed: int = 1) -> Tensor:
    places = np.random.default_rng(seed).choice(INPUTS * OUTPUTS, int(density * INPUTS * OUTPUTS), replace=False)
    return torch.from_numpy(np.sort(places)).to(torch.int32)


def run(base: nn.Module, hidden: Tensor, index: Tensor, delta: Tensor, bias: Tensor | None = None) -> Tensor:
    pattern = entry_pattern(index, tuple(base.weight.shape))
    return linear_with_entries(base, hidden, delta, bias, pattern, isinstance(base, Conv1D))


@given(st.sets(st.integers(0, 6 * 9 - 1), min_size=1).map(sorted))
@settings(deadline=None, max_examples=60)
def test_a_pattern_lists_the_places(places: list[int]) -> None:
    pattern = entry_pattern(torch.tensor(places, dtype=torch.int32), (6, 9))
    assert pattern.flat.tolist() == places
    if len(places) > SAMPLED_DENSITY * 54:
        assert pattern.rows is None
        assert pattern.columns is None
    else:
        starts, columns = pattern.rows.tolist(), pattern.columns.tolist()
        assert [9 * row + c for row in range(6) for c in columns[starts[row] : starts[row + 1]]] == places


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("density", [FEW, MANY])
@pytest.mark.parametrize(("kind", "bias"), [("Linear", True), ("Linear", False), ("Conv1D", True)])
def test_the_output_is_that_of_the_merged_layer_to_the_bit(
    kind: str, bias: bool, density: float, dtype: torch.dtype
) -> None:
    base, merged, index = build(kind, bias, dtype), build(kind, bias, dtype), draw(density)
    hidden = torch.randn(2, 5, INPUTS).to(dtype)
    delta = 0.1 * torch.randn(len(index))
    before = base.weight.clone()
    out = run(base, hidden, index, delta)
    merged.weight.data.view(-1)[index.long()] = (base.weight.flatten()[index.long()].float() + delta).to(dtype)
    assert torch.equal(out, merged(hidden))
    assert torch.equal(base.weight, before)


@pytest.mark.parametrize("density", [FEW, MANY])
@pytest.mark.parametrize(("kind", "bias"), [("Linear", True), ("Linear", False), ("Conv1D", True)])
def test_the_gradient_is_the_dense_one_at_the_places(kind: str, bias: bool, density: float) -> None:
    base, twin, index = build(kind, bias), build(kind, bias).requires_grad_(), draw(density)
    hidden = torch.randn(2, 5, INPUTS, requires_grad=True)
    twin_hidden = hidden.detach().clone().requires_grad_()
    upstream = torch.randn(2, 5, OUTPUTS)
    delta = torch.zeros(len(index), requires_grad=True)
    own_bias = base.bias.clone().requires_grad_() if bias else None
    run(base, hidden, index, delta, own_bias).backward(upstream)
    twin(twin_hidden).backward(upstream)
    torch.testing.assert_close(delta.grad, twin.weight.grad.flatten()[index.long()], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(hidden.grad, twin_hidden.grad, rtol=1e-6, atol=1e-6)
    if own_bias is not None:
        torch.testing.assert_close(own_bias.grad, twin.bias.grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("density", [FEW, MANY])
def test_gradients_agree_with_finite_differences(density: float) -> None:
    base, index = build("Linear", dtype=torch.float64), draw(density)
    hidden = torch.randn(3, INPUTS, dtype=torch.float64, requires_grad=True)
    delta = torch.randn(len(index), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda h, t: run(base, h, index, t), (hidden, delta))


@pytest.mark.parametrize("density", [FEW, MANY])
def test_no_gradient_is_computed_that_nobody_asked_for(density: float) -> None:
    base, index = build("Linear"), draw(density)
    delta = torch.randn(len(index), requires_grad=True)
    hidden = torch.randn(3, INPUTS)
    run(base, hidden, index, delta).sum().backward()
    assert delta.grad is not None
    assert hidden.grad is None
    hidden.requires_grad_()
    run(base, hidden, index, delta.detach()).sum().backward()
    assert hidden.grad is not None


@pytest.mark.parametrize("density", [FEW, MANY])
def test_autocast_computes_in_bfloat16_and_learns_in_float32(density: float) -> None:
    base, index = build("Linear"), draw(density)
    hidden = torch.randn(4, INPUTS, requires_grad=True)
    delta = torch.zeros(len(index), requires_grad=True)
    exact, at = torch.autograd.grad(run(base, hidden, index, delta).sum(), (hidden, delta))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = run(base, hidden, index, delta)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert delta.grad.dtype == hidden.grad.dtype == torch.float32
    torch.testing.assert_close(hidden.grad, exact, rtol=0.02, atol=0.02)
    torch.testing.assert_close(delta.grad, at, rtol=0.02, atol=0.02)


def test_nothing_but_one_temporary_matrix_is_kept() -> None:
    base, index = build("Linear"), draw(FEW)
    hidden, delta = torch.randn(3, INPUTS, requires_grad=True), torch.randn(len(index), requires_grad=True)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        run(base, hidden, index, delta)
    assert max(kept) < INPUTS * OUTPUTS


def test_hooks_of_the_base_layer_run() -> None:
    base, index, seen = build("Linear"), draw(FEW), []
    base.register_forward_hook(lambda module, inputs, output: seen.append((module, output.shape)))
    run(base, torch.randn(3, INPUTS), index, torch.randn(len(index)))
    assert seen == [(base, (3, OUTPUTS))]


def test_a_partitioned_matrix_is_refused() -> None:
    base, index = build("Linear"), draw(FEW)
    pattern = entry_pattern(index, (OUTPUTS, INPUTS))
    base.weight.data = torch.empty(0)
    with pytest.raises(AdapterError, match="A matrix is partitioned"):
        linear_with_entries(base, torch.randn(3, INPUTS), torch.randn(len(index)), None, pattern, False)
