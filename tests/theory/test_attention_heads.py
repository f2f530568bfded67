"""Attention in float64 is torch's attention, under any mask and at any length."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from ks_lottery.errors import DataError, OptionError
from ks_lottery.theory.attention import draw_target
from ks_lottery.theory.attention_heads import AttentionHeads, HeadMasks, causal, largest_error


def heads_of(heads: int, d_in: int, n_key: int, n_value: int, d_out: int, seed: int = 0) -> AttentionHeads:
    draw = np.random.default_rng(seed)
    shapes = ((d_in, n_key), (d_in, n_key), (d_in, n_value), (n_value, d_out))
    return AttentionHeads(*(draw.standard_normal((heads, *shape)) for shape in shapes))


@settings(max_examples=30, deadline=None)
@given(
    heads=st.integers(1, 3), d_in=st.integers(1, 5), n_key=st.integers(1, 6), n_value=st.integers(1, 6),
    d_out=st.integers(1, 4), length=st.integers(1, 9), seed=st.integers(0, 9), masked=st.booleans(),
)  # fmt: skip
def test_forward_is_scaled_dot_product_attention(
    heads: int, d_in: int, n_key: int, n_value: int, d_out: int, length: int, seed: int, masked: bool
) -> None:
    attention = heads_of(heads, d_in, n_key, n_value, d_out, seed)
    draw = np.random.default_rng(seed)
    tokens = draw.standard_normal((2, length, d_in))
    allowed = (draw.random((length, length)) < 0.5) | np.eye(length, dtype=bool) if masked else None
    query, key, value, output = (torch.from_numpy(matrix) for _, matrix in attention.matrices())
    x = torch.from_numpy(tokens)[:, None]
    mask = None if allowed is None else torch.from_numpy(allowed)
    seen = functional.scaled_dot_product_attention(x @ query, x @ key, x @ value, attn_mask=mask)
    wanted = (seen @ output).sum(dim=1).numpy()
    np.testing.assert_allclose(attention.forward(tokens, allowed), wanted, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("allowed", [None, causal(7)], ids=["full", "causal"])
def test_split_heads_are_torchs_multi_head_attention(allowed: np.ndarray | None) -> None:
    torch.manual_seed(0)
    width, heads, length = 12, 3, 7
    module = torch.nn.MultiheadAttention(width, heads, bias=False, batch_first=True, dtype=torch.float64)
    query, key, value = (part.detach().numpy().T for part in module.in_proj_weight.chunk(3))
    attention = AttentionHeads.split(query, key, value, module.out_proj.weight.detach().numpy().T, heads)
    x = torch.randn(2, length, width, dtype=torch.float64)
    hidden = None if allowed is None else torch.from_numpy(~allowed)
    wanted = module(x, x, x, attn_mask=hidden, need_weights=False)[0].detach().numpy()
    np.testing.assert_allclose(attention.forward(x.numpy(), allowed), wanted, rtol=1e-11, atol=1e-12)


def test_products_decide_the_output() -> None:
    attention = heads_of(2, 4, 5, 6, 3)
    assert (attention.heads, attention.d_in, attention.d_out, attention.n_key, attention.n_value) == (2, 4, 3, 5, 6)
    eye = np.broadcast_to(np.eye(4), (2, 4, 4))
    merged = AttentionHeads(attention.query_key() * math.sqrt(4), eye, eye, attention.value_output())
    tokens = np.random.default_rng(1).standard_normal((9, 4))
    np.testing.assert_allclose(merged.forward(tokens), attention.forward(tokens), rtol=1e-12, atol=1e-12)


def test_rows_in_pieces_are_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    attention = heads_of(2, 3, 4, 4, 3)
    tokens = np.random.default_rng(2).standard_normal((2, 11, 3))
    whole = attention.forward(tokens, causal(11))
    monkeypatch.setattr("ks_lottery.theory.attention_heads._SCORES_AT_ONCE", 50)
    np.testing.assert_allclose(attention.forward(tokens, causal(11)), whole, rtol=1e-13, atol=1e-14)


def test_masks_keep_values_and_count() -> None:
    source = heads_of(2, 3, 4, 4, 3)
    before = {name: matrix.copy() for name, matrix in source.matrices()}
    draw = np.random.default_rng(3)
    masks = HeadMasks(*(draw.random(matrix.shape) < 0.5 for _, matrix in source.matrices()))
    kept = source.masked(masks)
    for name, matrix in kept.matrices():
        assert (source.__dict__[name] == before[name]).all()
        assert (matrix == before[name] * getattr(masks, name)).all()
    number = sum(getattr(masks, name).sum() for name in before)
    assert masks.density == number / sum(matrix.size for matrix in before.values())


def test_largest_error_is_the_worst_token() -> None:
    wanted = np.zeros((2, 3, 2))
    found = wanted.copy()
    found[0, 1], found[1, 2] = (3, 4), (1, 0)
    assert largest_error(found, wanted) == 5.0


def test_causal() -> None:
    assert causal(3).tolist() == [[True, False, False], [True, True, False], [True, True, True]]


def test_shapes_that_do_not_fit() -> None:
    good = dict(heads_of(2, 3, 4, 4, 3).matrices())
    with pytest.raises(OptionError, match=re.escape("query has the shape (3, 4), but is to be [heads, rows, columns]")):
        AttentionHeads(**{**good, "query": good["query"][0]})
    with pytest.raises(OptionError, match=re.escape("do not fit each other: query (2, 3, 4), key (2, 3, 3)")):
        AttentionHeads(**{**good, "key": good["key"][:, :, :3]})
    with pytest.raises(OptionError, match="do not fit each other"):
        AttentionHeads(**{**good, "output": good["output"][:, :3]})


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["query", "key", "value", "output"])
def test_weights_that_are_not_finite(name: str, value: float) -> None:
    good = {key: matrix.copy() for key, matrix in heads_of(2, 3, 4, 4, 3).matrices()}
    good[name][1, 2, 0] = value
    with pytest.raises(DataError, match=rf"{name} has 1 values that are NaN .*{value}\) at head 1, row 2, column 0"):
        AttentionHeads(**good)


def test_heads_that_do_not_divide() -> None:
    square = np.eye(12)
    with pytest.raises(OptionError, match="5 heads do not divide the 12 columns of query. .* one of 1, 2, 3, 4, 6, 12"):
        AttentionHeads.split(square, square, square, square, 5)
    with pytest.raises(OptionError, match="0 heads do not divide"):
        AttentionHeads.split(square, square, square, square, 0)
    with pytest.raises(OptionError, match="output has 11 rows, but value has 12 columns"):
        AttentionHeads.split(square, square, square, square[:11], 4)


def test_masks_that_do_not_fit() -> None:
    source = heads_of(1, 2, 2, 2, 2)
    every = np.ones((1, 2, 2), dtype=bool)
    with pytest.raises(OptionError, match="The mask of key is float64 of shape"):
        source.masked(HeadMasks(every, every.astype(float), every, every))
    with pytest.raises(OptionError, match=re.escape("The mask of output is bool of shape (1, 2)")):
        source.masked(HeadMasks(every, every, every, every[..., 0]))


def test_tokens_and_attention_masks_that_do_not_fit() -> None:
    attention = draw_target(np.random.default_rng(0), 1, 3, 3, 3, 3)
    tokens = np.zeros((5, 3))
    with pytest.raises(OptionError, match=re.escape("Tokens have the shape (5, 2), but are to be [..., T, 3]")):
        attention.forward(tokens[:, :2])
    with pytest.raises(
        DataError, match="tokens has 1 values that are NaN or infinite, the first .* at token 4, value 1"
    ):
        attention.forward(np.where(np.arange(15).reshape(5, 3) == 13, np.nan, tokens))
    with pytest.raises(
        OptionError, match=re.escape("attention mask is bool of shape (4, 4), but is to be bool of shape")
    ):
        attention.forward(tokens, causal(4))
    with pytest.raises(OptionError, match="attention mask is float64"):
        attention.forward(tokens, causal(5).astype(float))
    blind = causal(5)
    blind[2] = False
    with pytest.raises(DataError, match="Token 2 may look at no token"):
        attention.forward(tokens, blind)
