"""Slices: what changed rows and columns of a matrix add to its output equals what the merged matrix does."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ks_lottery.adapter.columns import change_inputs, change_outputs, require_whole, slice_differences
from ks_lottery.adapter.parts import read_part, write_part
from ks_lottery.adapter.rows import RowChange
from ks_lottery.errors import AdapterError

OUTPUTS, INPUTS = 12, 10


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def change(index: list[int], width: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> RowChange:
    return RowChange(torch.tensor(index), randn(len(index), width, seed=seed, dtype=dtype))


def dense(weight: Tensor, dim: int, changes: list[RowChange]) -> Tensor:
    """The matrix with tuned slices, by the plainest means."""
    result = weight.clone()
    for item in changes:
        for position, delta in zip(item.index.tolist(), item.delta, strict=True):
            result.select(dim, position).add_(delta)
    return result


indices = st.sets(st.integers(0, INPUTS - 1), min_size=1).map(sorted)


@given(indices, indices, st.integers(0, 5))
@settings(deadline=None, max_examples=40)
def test_changed_outputs_equal_the_changed_matrix(first: list[int], second: list[int], seed: int) -> None:
    weight, hidden = randn(OUTPUTS, INPUTS, seed=seed), randn(2, 3, INPUTS, seed=9)
    changes = [change(first, INPUTS), change(second, INPUTS, seed=2)]
    out = change_outputs(F.linear(hidden, weight), hidden, *slice_differences(weight, 0, changes))
    torch.testing.assert_close(out, F.linear(hidden, dense(weight, 0, changes)), rtol=1e-12, atol=1e-12)


@given(indices, indices, st.integers(0, 5))
@settings(deadline=None, max_examples=40)
def test_changed_inputs_equal_the_changed_matrix(first: list[int], second: list[int], seed: int) -> None:
    weight, hidden = randn(OUTPUTS, INPUTS, seed=seed), randn(2, 3, INPUTS, seed=9)
    changes = [change(first, OUTPUTS), change(second, OUTPUTS, seed=2)]
    out = change_inputs(F.linear(hidden, weight), hidden, *slice_differences(weight, 1, changes))
    torch.testing.assert_close(out, F.linear(hidden, dense(weight, 1, changes)), rtol=1e-12, atol=1e-12)


def test_the_output_is_changed_in_place_and_elsewhere_keeps_its_bits() -> None:
    weight, hidden = randn(OUTPUTS, INPUTS, dtype=torch.float32), randn(4, INPUTS, dtype=torch.float32)
    plain = F.linear(hidden, weight)
    kept = plain.clone()
    item = change([1, 5], INPUTS, dtype=torch.float32)
    out = change_outputs(plain, hidden, *slice_differences(weight, 0, [item]))
    assert out is plain
    others = [row for row in range(OUTPUTS) if row not in (1, 5)]
    assert torch.equal(out[:, others], kept[:, others])


@pytest.mark.parametrize("dim", [0, 1])
def test_a_float32_matrix_is_not_read(dim: int) -> None:
    item = change([2], INPUTS, dtype=torch.float32)
    index, difference = slice_differences(torch.empty(0), dim, [item])
    assert index is item.index
    assert torch.equal(difference, item.delta)


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_follows_rounded_slices(dim: int, dtype: torch.dtype) -> None:
    """A delta below half a unit in the last place of its weight is lost in merging, so it must not act before."""
    weight = torch.ones(8, 8, dtype=dtype)
    delta = torch.tensor([[1e-5] * 8, [0.5] * 8], requires_grad=True)
    index, difference = slice_differences(weight, dim, [RowChange(torch.tensor([1, 4]), delta)])
    assert index.tolist() == [1, 4]
    assert difference.tolist() == [[0.0] * 8, [0.5] * 8]
    difference.sum().backward()
    assert torch.equal(delta.grad, torch.ones(2, 8))


def test_a_partitioned_half_precision_matrix_is_refused() -> None:
    item = change([2], INPUTS, dtype=torch.float32)
    with pytest.raises(AdapterError, match=r"partitioned .DeepSpeed ZeRO-3.*slices.*on a float32 base model"):
        slice_differences(torch.empty(0, dtype=torch.bfloat16), 0, [item])
    with pytest.raises(AdapterError, match="must be read in every step"):
        require_whole(torch.empty(0))


@pytest.mark.parametrize("dim", [0, 1, None])
def test_reading_is_the_inverse_of_writing(dim: int | None) -> None:
    weight = randn(OUTPUTS, INPUTS, dtype=torch.bfloat16)
    kept = weight.clone()
    index = torch.tensor([0, 3, 9], dtype=torch.int32)
    values = read_part(weight, dim, index)
    assert values.shape == {0: (3, INPUTS), 1: (3, OUTPUTS), None: (3,)}[dim]
    write_part(weight, dim, index, torch.zeros_like(values))
    assert int((weight != kept).sum()) == values.numel()
    write_part(weight, dim, index, values)
    assert torch.equal(weight, kept)
