"""Layers of which parts are trainable: exact gradients, exact merging, nothing of the size of a matrix for slices."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.pytorch_utils import Conv1D

from ks_lottery.adapter.checks import require_trainable
from ks_lottery.adapter.linear import LinearLayer, VectorLayer
from ks_lottery.adapter.overlap import outside, without_overlap
from ks_lottery.adapter.parts import BIAS, COLUMNS, ENTRIES, ROWS, PartKind, PartLayer, position_options
from ks_lottery.adapter.rows import RowChange
from ks_lottery.errors import AdapterError

INPUTS, OUTPUTS = 20, 28
KINDS = [("Linear", True), ("Linear", False), ("Conv1D", True)]

Positions = Mapping[PartKind, list[int]]


def build(kind: str = "Linear", bias: bool = True, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    base = Conv1D(OUTPUTS, INPUTS) if kind == "Conv1D" else nn.Linear(INPUTS, OUTPUTS, bias=bias)
    if bias:
        base.bias.data = torch.randn(OUTPUTS)
    return base.to(dtype).requires_grad_(False)


def disjoint(bias: bool = True) -> Positions:
    """Rows, columns, and single weights in neither, about 5 % of the matrix."""
    rows, columns = [1, 2, 3, 9], [0, 17]
    width = INPUTS
    places = [p for p in range(0, 19 * width, 17) if p // width not in rows and p % width not in columns]
    return {ROWS: rows, COLUMNS: columns, ENTRIES: places} | ({BIAS: [0, 5, 19]} if bias else {})


def with_parts(base: nn.Module, adapters: Mapping[str, Positions], scale: float = 0.1, seed: int = 3) -> LinearLayer:
    """A layer with adapters whose deltas are random; all of them act."""
    layer = LinearLayer(base)
    generator = torch.Generator().manual_seed(seed)
    for name, parts in adapters.items():
        for kind, positions in parts.items():
            layer.add_part(name, kind, len(positions), positions)
            delta = getattr(layer, kind.values)[name]
            delta.data = scale * torch.randn(delta.shape, generator=generator)
    layer.set_adapter(list(adapters))
    return layer


def conv_positions(positions: Positions) -> Positions:
    """The same number of positions where the matrix has INPUTS rows and OUTPUTS columns."""
    rows, columns = positions[ROWS], positions[COLUMNS]
    places = [p for p in range(0, 15 * OUTPUTS, 19) if p // OUTPUTS not in rows and p % OUTPUTS not in columns]
    return {**positions, ENTRIES: places}


def positions_for(kind: str, bias: bool) -> Positions:
    return conv_positions(disjoint(bias)) if kind == "Conv1D" else disjoint(bias)


def masks_of(layer: PartLayer, name: str = "default") -> dict[str, Tensor]:
    """Which weights an adapter may change."""
    masks = {n: torch.zeros(p.shape, dtype=torch.bool) for n, p in layer.get_base_layer().named_parameters()}
    for kind in layer.kinds:
        if name in getattr(layer, kind.values):
            index = getattr(layer, kind.index)[name].long()
            mask = masks[kind.parameter]
            if kind.dim is None:
                mask.view(-1)[index] = True
            else:
                mask.index_fill_(kind.dim, index, True)
    return masks


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kind", "bias"), KINDS)
def test_merged_and_unmerged_agree_and_unmerging_is_exact(kind: str, bias: bool, dtype: torch.dtype) -> None:
    base = build(kind, bias, dtype)
    before = {name: value.clone() for name, value in base.named_parameters()}
    layer = with_parts(base, {"default": positions_for(kind, bias)})
    hidden = torch.randn(3, 7, INPUTS).to(dtype)
    unmerged = layer(hidden)
    assert unmerged.dtype == dtype
    layer.merge(safe_merge=True)
    masks = masks_of(layer)
    for name, value in base.named_parameters():
        assert torch.equal(value[~masks[name]], before[name][~masks[name]])
        assert (value[masks[name]] != before[name][masks[name]]).float().mean() > 0.5
    tolerance = 2e-6 if dtype == torch.float32 else 4 * float(unmerged.detach().abs().max()) / 256
    torch.testing.assert_close(layer(hidden), unmerged, rtol=0, atol=tolerance)
    layer.unmerge()
    assert all(torch.equal(value, before[name]) for name, value in base.named_parameters())
    assert torch.equal(layer(hidden), unmerged)
    layer.enable_adapters(False)
    assert torch.equal(layer(hidden), build(kind, bias, dtype)(hidden))


@pytest.mark.parametrize(("kind", "bias"), KINDS)
def test_gradients_are_those_of_the_whole_layer_at_the_positions(kind: str, bias: bool) -> None:
    layer = with_parts(build(kind, bias), {"default": positions_for(kind, bias)})
    twin = build(kind, bias)
    layer.merge()
    twin.load_state_dict(layer.get_base_layer().state_dict())
    layer.unmerge()
    twin.requires_grad_()
    hidden = torch.randn(3, 7, INPUTS, requires_grad=True)
    twin_hidden = hidden.detach().clone().requires_grad_()
    upstream = torch.randn(3, 7, OUTPUTS)
    layer(hidden).backward(upstream)
    twin(twin_hidden).backward(upstream)
    torch.testing.assert_close(hidden.grad, twin_hidden.grad, rtol=1e-6, atol=1e-5)
    found = {kind.values: getattr(layer, kind.values)["default"].grad for kind in layer.kinds if kind != BIAS or bias}
    dense = twin.weight.grad
    index = {kind: getattr(layer, kind.index)["default"].long() for kind in layer.kinds if kind != BIAS or bias}
    expected = {
        ROWS.values: dense[index[ROWS]],
        # What crosses a chosen row is trained by the row.
        COLUMNS.values: dense[:, index[COLUMNS]].T.index_fill(1, index[ROWS], 0.0),
        ENTRIES.values: dense.flatten()[index[ENTRIES]],
    } | ({BIAS.values: twin.bias.grad[index[BIAS]]} if bias else {})
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-6, atol=1e-5)


@given(
    st.sets(st.integers(0, OUTPUTS - 1), min_size=1).map(sorted),
    st.sets(st.integers(0, INPUTS - 1), min_size=1).map(sorted),
    st.sets(st.integers(0, OUTPUTS * INPUTS - 1), min_size=1).map(sorted),
)
@settings(deadline=None, max_examples=30)
def test_adapters_that_overlap_add_up_and_come_apart_again(
    rows: list[int], columns: list[int], places: list[int]
) -> None:
    base = build(dtype=torch.float64)
    before = base.weight.clone()
    layer = with_parts(base, {"a": {ROWS: rows}, "b": {COLUMNS: columns}, "c": {ENTRIES: places, ROWS: [0, 27]}})
    expected = before.clone()
    for change in layer.changes(["a", "b", "c"], ROWS):
        expected[change.index] += change.delta.detach()
    for change in layer.changes(["a", "b", "c"], COLUMNS):
        expected[:, change.index] += change.delta.detach().T
    for change in layer.changes(["a", "b", "c"], ENTRIES):
        expected.view(-1)[change.index.long()] += change.delta.detach()
    hidden = torch.randn(4, INPUTS, dtype=torch.float64)
    unmerged = layer(hidden)
    layer.merge(adapter_names=["b"])
    with pytest.warns(UserWarning, match="additionally merging"):
        layer.merge(adapter_names=["a", "c"])
    torch.testing.assert_close(base.weight, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer(hidden), unmerged, rtol=1e-12, atol=1e-12)
    merged = base.weight.clone()
    assert torch.equal(layer.pretrained(ROWS, torch.arange(OUTPUTS)), before)
    assert torch.equal(base.weight, merged)
    layer.unmerge()
    assert torch.equal(base.weight, before)


def test_rows_and_columns_of_one_adapter_count_a_crossing_once() -> None:
    layer = with_parts(build(), {"default": {ROWS: [2, 5], COLUMNS: [1]}})
    (columns,) = layer.changes(["default"], COLUMNS)
    assert columns.delta[0, [2, 5]].tolist() == [0.0, 0.0]
    before = layer.weight.clone()
    layer.merge()
    (rows,) = layer.changes(["default"], ROWS)
    torch.testing.assert_close(layer.weight[[2, 5]], before[[2, 5]] + rows.delta)
    layer.unmerge()
    layer(torch.randn(3, INPUTS)).sum().backward()
    assert layer.ks_ticket_columns["default"].grad[0, [2, 5]].tolist() == [0.0, 0.0]


class _Allocations(TorchDispatchMode):
    """Records the sizes of the tensors that operations newly allocate."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        given = {a.untyped_storage().data_ptr() for a in args if isinstance(a, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in given:
                self.sizes.append(tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("build_base", [lambda: nn.Linear(300, 400), lambda: Conv1D(400, 300)])
def test_slices_allocate_nothing_of_the_size_of_the_matrix(build_base: Any, dtype: torch.dtype) -> None:
    base = build_base().to(dtype).requires_grad_(False)
    layer = with_parts(base, {"default": {ROWS: [1, 7, 200], COLUMNS: [5, 9]}}, scale=0.0)
    hidden = torch.randn(6, 300, dtype=dtype, requires_grad=True)
    with _Allocations() as seen:
        layer(hidden).sum().backward()
    assert layer.ks_ticket_delta["default"].grad is not None
    assert max(seen.sizes) <= 6 * 400


def test_loading_other_positions_is_noticed() -> None:
    layer = with_parts(build(), {"default": {ENTRIES: [3, 40]}})
    hidden = torch.randn(3, INPUTS)
    layer(hidden).sum().backward()
    other = with_parts(build(), {"default": {ENTRIES: [7, 222]}})
    layer.load_state_dict(other.state_dict())
    layer.zero_grad()
    layer(hidden).sum().backward()
    other(hidden).sum().backward()
    assert torch.equal(layer(hidden), other(hidden))
    assert torch.equal(layer.ks_ticket_entries["default"].grad, other.ks_ticket_entries["default"].grad)


@torch.inference_mode()
def test_an_adapter_made_in_inference_mode_computes() -> None:
    layer = with_parts(build(), {"default": disjoint()})
    hidden = torch.randn(3, INPUTS)
    unmerged = layer(hidden)
    layer.merge()
    torch.testing.assert_close(layer(hidden), unmerged, rtol=1e-5, atol=1e-5)


# torch instantiates the autograd functions that it traces.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_every_part_compiles_without_graph_breaks() -> None:
    layer, norm = with_parts(build(), {"default": disjoint()}), VectorLayer(nn.LayerNorm(OUTPUTS).requires_grad_(False))
    norm.add_part("default", BIAS, 2, [0, 3])
    hidden = torch.randn(3, INPUTS)

    def gradients(function: Callable[[Tensor], Tensor]) -> list[Tensor]:
        for parameter in (*layer.parameters(), *norm.parameters()):
            parameter.grad = None
        function(hidden).square().sum().backward()
        return [p.grad for p in (*layer.parameters(), *norm.parameters()) if p.grad is not None]

    def both(x: Tensor) -> Tensor:
        return norm(layer(x))

    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    expected, got = gradients(both), gradients(compiled)
    assert len(got) == len(expected) == 5
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_single_weights_take_eight_bytes() -> None:
    layer = with_parts(build(), {"default": {ENTRIES: [3, 40], BIAS: [1]}})
    for kind in (ENTRIES, BIAS):
        assert getattr(layer, kind.index)["default"].dtype == torch.int32
        assert getattr(layer, kind.values)["default"].dtype == torch.float32
    with torch.device("meta"):
        huge = LinearLayer(nn.Linear(2**16, 2**16))
        huge.add_part("default", ENTRIES, 2, None)
    assert huge.ks_ticket_entries_index["default"].dtype == torch.int64


def norms() -> list[nn.Module]:
    torch.manual_seed(0)
    return [LlamaRMSNorm(INPUTS), nn.LayerNorm(INPUTS)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("base", norms(), ids=lambda norm: type(norm).__name__)
def test_a_norm_computes_as_the_merged_norm_to_the_bit(base: nn.Module, dtype: torch.dtype) -> None:
    base = copy.deepcopy(base).to(dtype).requires_grad_(False)
    before = base.weight.clone()
    layer = VectorLayer(base)
    kinds = [ENTRIES, BIAS] if getattr(base, "bias", None) is not None else [ENTRIES]
    for kind in kinds:
        layer.add_part("default", kind, 3, [0, 4, 11])
        getattr(layer, kind.values)["default"].data = 0.3 * torch.randn(3)
    hidden = torch.randn(5, INPUTS).to(dtype)
    unmerged = layer(hidden)
    unmerged.float().square().sum().backward()
    layer.merge()
    assert (base.weight != before).nonzero().flatten().tolist() == [0, 4, 11]
    merged = layer(hidden)
    assert torch.equal(merged, unmerged)
    base.requires_grad_()
    base(hidden).float().square().sum().backward()
    for kind in kinds:
        dense = getattr(base, kind.parameter).grad[[0, 4, 11]].float()
        gradient = getattr(layer, kind.values)["default"].grad
        # Dense bfloat16 gradients are rounded, those of deltas are not.
        torch.testing.assert_close(gradient, dense, rtol=1e-6 if dtype == torch.float32 else 1e-2, atol=1e-6)
    layer.unmerge()
    assert torch.equal(base.weight, before)


def test_outside_is_the_complement_of_the_slices() -> None:
    mask = torch.zeros(4, 5, dtype=torch.bool)
    mask[[1, 3]] = True
    mask[:, 2] = True
    assert outside(range(20), [1, 3], [2], 5).tolist() == (~mask).flatten().tolist()


def test_without_overlap_changes_the_matrix_alike() -> None:
    parts = {
        ROWS: RowChange(torch.tensor([1, 3]), torch.randn(2, 5, dtype=torch.float64)),
        COLUMNS: RowChange(torch.tensor([0, 2]), torch.randn(2, 4, dtype=torch.float64)),
        ENTRIES: RowChange(torch.tensor([1, 2, 5, 7, 19]), torch.randn(5, dtype=torch.float64)),
    }

    def total(changes: Mapping[PartKind, RowChange]) -> Tensor:
        matrix = torch.zeros(4, 5, dtype=torch.float64)
        for kind, change in changes.items():
            if kind == ROWS:
                matrix[change.index] += change.delta
            elif kind == COLUMNS:
                matrix[:, change.index] += change.delta.T
            else:
                matrix.view(-1)[change.index] += change.delta
        return matrix

    apart = without_overlap(parts, 5)
    torch.testing.assert_close(total(apart), total(parts))
    assert apart[ENTRIES].index.tolist() == [1]
    assert bool((apart[COLUMNS].delta[:, [1, 3]] == 0).all())
    assert ENTRIES not in without_overlap({**parts, ENTRIES: RowChange(torch.tensor([5]), torch.ones(1).double())}, 5)


class Linear4bit(nn.Linear):
    """Stands for bitsandbytes' class: packed weights in bytes."""

    def __init__(self) -> None:
        super().__init__(4, 8)
        self.weight = nn.Parameter(torch.zeros(16, 1, dtype=torch.uint8), requires_grad=False)


class PackedTensor(Tensor):
    """Stands for torchao's tensors, which say that they are float32."""


def torchao_linear() -> nn.Module:
    module = nn.Linear(4, 8)
    module.weight = nn.Parameter(torch.zeros(8, 4).as_subclass(PackedTensor), requires_grad=False)
    return module


def float8_linear() -> nn.Module:
    module = nn.Linear(4, 8)
    module.weight = nn.Parameter(torch.zeros(8, 4).to(torch.float8_e4m3fn), requires_grad=False)
    return module


@pytest.mark.parametrize(
    ("module", "stored"),
    [(Linear4bit(), "torch.uint8"), (float8_linear(), "torch.float8_e4m3fn"), (torchao_linear(), "PackedTensor")],
)
def test_quantised_matrices_are_refused(module: nn.Module, stored: str) -> None:
    with pytest.raises(AdapterError, match=rf"The weight of 'up', a .*Linear.*, is quantised \({stored}\)"):
        require_trainable("up", module, [ROWS])


class Rounding(nn.Linear):
    """Stands for layers that quantise in their forward pass."""

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, self.weight.sign(), self.bias)


class SpeltOut(nn.Linear):
    """Stands for Falcon's layer, which multiplies by hand."""

    def forward(self, input: Tensor) -> Tensor:
        return input @ self.weight.T + self.bias


def test_linear_layers_that_multiply_by_hand_are_linear_layers() -> None:
    base = SpeltOut(4, 8)
    require_trainable("up", base, [ROWS, ENTRIES])
    assert with_parts(base, {"default": {ROWS: [1], ENTRIES: [17]}})(torch.randn(2, 4)).shape == (2, 8)


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.zeros(2, 6, 4))
        self.weight = nn.Parameter(torch.zeros(2, 6, 4))


@pytest.mark.parametrize(
    ("module", "kinds", "message"),
    [
        (nn.Linear(4, 8, bias=False), [BIAS], "torch.nn.*Linear without a bias; it has weight"),
        (nn.ReLU(), [ENTRIES], "without a weight; it has no parameter of its own"),
        (nn.Embedding(4, 8), [COLUMNS], "embedding, of which only whole rows"),
        (Rounding(4, 8), [ROWS], "Rounding, which is more than a product with it"),
        (nn.MultiheadAttention(4, 2).out_proj, [ROWS], "whose matrix nn.MultiheadAttention reads past it"),
        (nn.Conv2d(2, 2, 1), [ENTRIES], "computes with its parameters in a way of its own"),
        (Experts(), [ROWS], "computes with its parameters in a way of its own"),
        (nn.LayerNorm(4), [ROWS, ENTRIES], "computes with its parameters in a way of its own"),
    ],
)
def test_other_modules_are_refused(module: nn.Module, kinds: list[PartKind], message: str) -> None:
    with pytest.raises(AdapterError, match=f"'block.part' is an? .*{message}"):
        require_trainable("block.part", module, kinds)


def test_slices_of_a_bare_parameter_are_refused() -> None:
    with pytest.raises(AdapterError, match=r"slices of 'experts.gate_up_proj', which is no weight of a linear layer"):
        position_options([("experts.gate_up_proj", 0, np.array([1]))])


def test_safe_merging_refuses_values_that_are_not_finite() -> None:
    layer = with_parts(build(), {"default": {ROWS: [1]}, "second": {ENTRIES: [70]}})
    before = layer.weight.clone()
    layer.merge(adapter_names=["default"])
    once = layer.weight.clone()
    layer.ks_ticket_entries["second"].data[0] = torch.inf
    with pytest.raises(AdapterError, match="default, second hold NaN"), pytest.warns(UserWarning, match="additionally"):
        layer.merge(safe_merge=True, adapter_names=["second"])
    assert torch.equal(layer.weight, once)
    assert layer.merged_adapters == ["default"]
    layer.unmerge()
    assert torch.equal(layer.weight, before)
