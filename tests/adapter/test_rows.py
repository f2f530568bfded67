"""Rows: what changed rows do to embedded tokens and logits equals what the merged matrix does."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.models.bart.modeling_bart import BartScaledWordEmbedding
from transformers.models.gemma3.modeling_gemma3 import Gemma3TextScaledWordEmbedding

from ks_lottery.adapter.rows import (
    RowChange,
    add_changes,
    change_embedding,
    change_logits,
    find_rows,
    union_index,
    wide_dtype,
)

V, D = 40, 8


def change(rows: list[int], seed: int = 0, scale: float = 0.1) -> RowChange:
    generator = torch.Generator().manual_seed(seed)
    return RowChange(torch.tensor(rows), scale * torch.randn(len(rows), D, generator=generator))


def merged(weight: Tensor, changes: list[RowChange]) -> Tensor:
    """The matrix with tuned rows, by the plainest means."""
    result = weight.detach().clone()
    for row in range(len(weight)):
        tuned = weight[row].detach().to(wide_dtype(weight.dtype))
        for item in changes:
            if row in item.index.tolist():
                tuned = tuned + item.delta[item.index.tolist().index(row)]
        result[row] = tuned.to(weight.dtype)
    return result


def embedding(kind: str, dtype: torch.dtype) -> nn.Embedding:
    torch.manual_seed(0)
    if kind == "gemma":
        return Gemma3TextScaledWordEmbedding(V, D, padding_idx=0, embed_scale=D**0.5).to(dtype)
    if kind == "bart":
        return BartScaledWordEmbedding(V, D, padding_idx=0, embed_scale=D**0.5).to(dtype)
    return nn.Embedding(V, D, padding_idx=0).to(dtype)


@given(
    st.sets(st.integers(0, 60), min_size=1).map(sorted),
    st.lists(st.integers(0, 60), min_size=1, max_size=30),
    st.sampled_from([torch.int64, torch.int32]),
)
@settings(deadline=None, max_examples=60)
def test_find_rows_is_a_dictionary(index: list[int], wanted: list[int], dtype: torch.dtype) -> None:
    slot = find_rows(torch.tensor(index), torch.tensor(wanted, dtype=dtype))
    assert slot.tolist() == [index.index(row) if row in index else len(index) for row in wanted]


def test_find_rows_takes_any_shape_and_stride() -> None:
    wanted = torch.arange(12).reshape(3, 4).T
    slot = find_rows(torch.tensor([2, 5]), wanted)
    assert slot.shape == (4, 3)
    assert wanted[slot < 2].tolist() == [5, 2]


def test_a_placeholder_index_selects_nothing() -> None:
    assert (find_rows(torch.full((3,), -1), torch.arange(V)) == 3).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("kind", ["plain", "gemma", "bart"])
@pytest.mark.parametrize("adapters", [1, 2])
def test_embedding_equals_the_merged_embedding_bit_for_bit(kind: str, dtype: torch.dtype, adapters: int) -> None:
    base = embedding(kind, dtype)
    changes = [change([0, 3, 17]), change([3, 4, 39], seed=1)][:adapters]
    tokens = torch.randint(V, (3, 50), generator=torch.Generator().manual_seed(2))
    out = change_embedding(base, tokens, base(tokens), changes)
    twin = embedding(kind, dtype)
    twin.weight.data = merged(base.weight, changes)
    assert out.dtype == dtype
    assert torch.equal(out, twin(tokens))
    untouched = ~torch.isin(tokens, union_index(changes))
    assert torch.equal(out[untouched].view(torch.uint8), base(tokens)[untouched].view(torch.uint8))


def test_minus_zero_of_an_unselected_row_keeps_its_sign() -> None:
    base = nn.Embedding.from_pretrained(torch.full((V, D), -0.0))
    tokens = torch.arange(V)
    out = change_embedding(base, tokens, base(tokens), [RowChange(torch.tensor([5]), torch.zeros(1, D))])
    assert torch.signbit(out[torch.arange(V) != 5]).all()


@pytest.mark.parametrize("kind", ["plain", "gemma"])
def test_embedding_gradient_is_the_rows_of_the_dense_gradient(kind: str) -> None:
    base = embedding(kind, torch.float64)
    item = change([1, 3, 17, 20])
    delta = item.delta.double().requires_grad_()
    tokens = torch.randint(V, (3, 50), generator=torch.Generator().manual_seed(2))
    upstream = torch.randn(3, 50, D, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    base.requires_grad_(False)
    change_embedding(base, tokens, base(tokens), [RowChange(item.index, delta)]).backward(upstream)
    base.requires_grad_(True)
    base(tokens).backward(upstream)
    torch.testing.assert_close(delta.grad, base.weight.grad[item.index], rtol=1e-12, atol=1e-14)


def test_bfloat16_gradients_are_summed_in_float32() -> None:
    base = embedding("plain", torch.bfloat16)
    delta = torch.zeros(1, D, requires_grad=True)
    tokens = torch.full((1, 1000), 3)
    out = change_embedding(base, tokens, base(tokens).detach(), [RowChange(torch.tensor([3]), delta)])
    out.backward(torch.full_like(out, 0.25))
    assert torch.equal(delta.grad, torch.full((1, D), 250.0))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("adapters", [1, 2])
def test_logits_equal_the_merged_layer(bias: bool, adapters: int) -> None:
    torch.manual_seed(0)
    base = nn.Linear(D, V, bias=bias, dtype=torch.float64)
    changes = [RowChange(c.index, c.delta.double()) for c in (change([0, 3, 17]), change([3, 39], seed=1))][:adapters]
    hidden = torch.randn(2, 5, D, dtype=torch.float64)
    out = change_logits(base, hidden, base(hidden), changes)
    torch.testing.assert_close(out, F.linear(hidden, merged(base.weight, changes), base.bias), rtol=1e-13, atol=1e-13)
    untouched = [row for row in range(V) if row not in union_index(changes).tolist()]
    assert torch.equal(out[..., untouched], base(hidden)[..., untouched])


def test_bfloat16_logits_follow_rounded_rows() -> None:
    """A delta below half a unit in the last place of its weight is lost in merging, so it must not act before."""
    base = nn.Linear(D, V, bias=False, dtype=torch.bfloat16)
    base.weight.data.fill_(1.0)
    hidden = torch.ones(1, D, dtype=torch.bfloat16)
    lost = RowChange(torch.tensor([4]), torch.full((1, D), 1e-3))
    kept = RowChange(torch.tensor([4]), torch.full((1, D), 0.5))
    assert torch.equal(change_logits(base, hidden, base(hidden), [lost]), base(hidden))
    assert change_logits(base, hidden, base(hidden), [kept])[0, 4].item() == 1.5 * D


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_logits_gradient_is_the_rows_of_the_dense_gradient(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    base = nn.Linear(D, V, bias=False, dtype=dtype)
    index = torch.tensor([2, 5, 30])
    delta = torch.zeros(3, D, dtype=wide_dtype(dtype), requires_grad=True)
    hidden = torch.randn(4, D, dtype=dtype, requires_grad=True)
    upstream = torch.randn(4, V, dtype=dtype)
    change_logits(base, hidden, base(hidden), [RowChange(index, delta)]).backward(upstream)
    dense = upstream.to(delta.dtype).T @ hidden.detach().to(delta.dtype)
    torch.testing.assert_close(delta.grad, dense[index], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(hidden.grad, upstream @ base.weight.detach(), rtol=2e-2, atol=2e-2)


class _Allocations(TorchDispatchMode):
    """Records the largest tensor that an operation newly allocates."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        given_storages = {a.untyped_storage().data_ptr() for a in args if isinstance(a, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in given_storages:
                self.seen.append((str(func), tensor.numel()))
        return result


def test_nothing_of_the_size_of_the_matrix_or_of_the_logits_is_made() -> None:
    vocabulary, tokens_count = 5000, 6
    base = nn.Embedding(vocabulary, D).requires_grad_(False)
    head = nn.Linear(D, vocabulary, bias=False).requires_grad_(False)
    delta = torch.zeros(3, D, requires_grad=True)
    item = RowChange(torch.tensor([2, 5, 30]), delta)
    tokens = torch.tensor([2, 5, 5, 7, 8, 9])
    with _Allocations() as embedding_allocations:
        vectors = change_embedding(base, tokens, base(tokens), [item])
        vectors.sum().backward()
    assert max(size for _, size in embedding_allocations.seen) <= tokens_count * D
    vectors = vectors.detach().requires_grad_()
    plain = head(vectors)
    with _Allocations() as head_allocations:
        out = change_logits(head, vectors, plain, [item])
    assert out is plain
    assert max(size for _, size in head_allocations.seen) <= tokens_count * D
    upstream = torch.ones_like(out)
    with _Allocations() as backward_allocations:
        out.backward(upstream)
    assert max(size for _, size in backward_allocations.seen) <= tokens_count * D


def test_add_changes_adds_in_order_and_in_float32() -> None:
    rows = torch.tensor([[1.0], [2.0]], dtype=torch.bfloat16)
    first = RowChange(torch.tensor([3]), torch.tensor([[0.5]]))
    second = RowChange(torch.tensor([3, 8]), torch.tensor([[1e-3], [1.0]]))
    tuned = add_changes(rows, torch.tensor([3, 8]), [first, second])
    assert tuned.dtype == torch.float32
    assert tuned.flatten().tolist() == [torch.tensor(1.5).add(torch.tensor(1e-3)).item(), 3.0]


def test_changed_rows_compile_without_graph_breaks() -> None:
    base, head = nn.Embedding(V, D), nn.Linear(D, V, bias=False)
    item = change([0, 3, 17])

    def step(tokens: Tensor) -> Tensor:
        vectors = change_embedding(base, tokens, base(tokens), [item])
        return change_logits(head, vectors, head(vectors), [item])

    tokens = torch.randint(V, (2, 9))
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(tokens), step(tokens))
