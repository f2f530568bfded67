"""Strong tickets of feed-forward nets and of a transformer without normalisation."""

import re
from itertools import pairwise
from statistics import median

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from ks_lottery.errors import DataError, OptionError
from ks_lottery.theory.attention import draw_source, draw_target, unit_norm
from ks_lottery.theory.attention_heads import causal, largest_error
from ks_lottery.theory.transformer import (
    Block,
    FeedForward,
    block_tickets,
    draw_source_blocks,
    draw_source_feed_forward,
    draw_target_blocks,
    feed_forward_ticket,
    transformer,
)  # fmt: skip


def net(seed: int, *widths: int) -> FeedForward:
    draw = np.random.default_rng(seed)
    return FeedForward(tuple(unit_norm(draw.standard_normal(shape)) for shape in pairwise(widths)))


def test_feed_forward_has_relu_between_its_layers() -> None:
    wanted = net(0, 3, 5, 4, 2)
    first, second, third = (torch.from_numpy(layer) for layer in wanted.layers)
    x = np.random.default_rng(1).standard_normal((2, 7, 3))
    expected = functional.relu(functional.relu(torch.from_numpy(x) @ first) @ second) @ third
    np.testing.assert_allclose(wanted.forward(x), expected.numpy(), rtol=1e-12, atol=1e-13)


@settings(max_examples=30, deadline=None)
@given(
    widths=st.lists(st.integers(1, 4), min_size=2, max_size=4), hidden=st.integers(8, 40), seed=st.integers(0, 99)
)  # fmt: skip
def test_the_masked_net_is_the_chosen_sums(widths: list[int], hidden: int, seed: int) -> None:
    wanted = net(seed, *widths)
    random = draw_source_feed_forward(np.random.default_rng(seed), widths, hidden)
    untouched = [layer.copy() for layer in random.layers]
    ticket = feed_forward_ticket(wanted, random)
    assert all((layer == before).all() for layer, before in zip(random.layers, untouched, strict=True))
    assert all(mask.dtype == bool for mask in ticket.masks)
    kept = ticket.feed_forward()
    # Each hidden unit has one input, so a pair of layers is A relu(x) - B relu(-x), with A and B the chosen sums.
    x = np.random.default_rng(seed + 1).standard_normal((6, widths[0]))
    through = x
    for number in range(len(wanted.layers)):
        first, second = kept.layers[2 * number : 2 * number + 2]
        assert ((first != 0).sum(axis=0) <= 1).all()
        above, below = np.maximum(first, 0) @ second, np.minimum(first, 0) @ second
        through = np.maximum(through, 0) @ above - np.maximum(-through, 0) @ below
        through = np.maximum(through, 0) if number + 1 < len(wanted.layers) else through
    np.testing.assert_allclose(kept.forward(x), through, rtol=1e-12, atol=1e-12)


def test_each_input_takes_hidden_units_of_either_sign() -> None:
    ticket = feed_forward_ticket(net(0, 4, 4), draw_source_feed_forward(np.random.default_rng(0), (4, 4), 80))
    first, mask = ticket.source.layers[0], ticket.masks[0]
    assert (mask.sum(axis=0) <= 1).all()
    for row in range(3):
        assert (first[row, mask[row]] > 0).sum() == (first[row, mask[row]] < 0).sum() == 10


def test_the_error_of_a_net_falls_exponentially() -> None:
    errors = []
    for items in (4, 8, 12, 16):
        found = []
        for seed in range(9):
            wanted = net(seed, 4, 4, 4)
            random = draw_source_feed_forward(np.random.default_rng(50 + seed), (4, 4, 4), 8 * items)
            x = np.random.default_rng(seed).standard_normal((200, 4))
            kept = feed_forward_ticket(wanted, random).feed_forward()
            found.append(largest_error(kept.forward(x), wanted.forward(x)))
        errors.append(median(found))
    assert np.polyfit((4, 8, 12, 16), np.log(errors), 1)[0] < -0.3


@pytest.mark.parametrize("allowed", [None, causal(6)], ids=["full", "causal"])
def test_blocks_are_residual(allowed: np.ndarray | None) -> None:
    blocks = draw_target_blocks(np.random.default_rng(0), 2, 2, 4)
    tokens = np.random.default_rng(1).standard_normal((3, 6, 4))
    states = transformer(blocks, tokens, allowed)
    for block, state in zip(blocks, states, strict=True):
        middle = tokens + block.attention.forward(tokens, allowed)
        tokens = middle + block.feed_forward.forward(middle)
        assert (state == tokens).all()


def test_the_error_of_a_transformer_falls_with_the_width_for_one_to_three_blocks() -> None:
    errors = {}
    for items in (8, 22):
        found = []
        for seed in range(7):
            blocks = draw_target_blocks(np.random.default_rng(seed), 3, 2, 4)
            random = draw_source_blocks(np.random.default_rng(70 + seed), blocks, 4 * items, 8 * items)
            tokens = 2 * unit_norm(np.random.default_rng(seed).standard_normal((16, 1, 4)))[:, 0]
            kept = [ticket.block() for ticket in block_tickets(blocks, random)]
            pairs = zip(transformer(kept, tokens, causal(16)), transformer(blocks, tokens, causal(16)), strict=True)
            found.append([largest_error(one, other) for one, other in pairs])
        errors[items] = np.median(found, axis=0)
    assert (errors[8] > 100 * errors[22]).all()
    for found in errors.values():
        assert found[0] < found[1] < found[2]


def test_nets_that_do_not_fit() -> None:
    with pytest.raises(OptionError, match=re.escape("have the shapes []: there is to be at least one")):
        FeedForward(())
    with pytest.raises(OptionError, match=re.escape("[(2, 3), (4, 2)]")):
        FeedForward((np.ones((2, 3)), np.ones((4, 2))))
    with pytest.raises(DataError, match="layer 1 of the feed-forward net has 1 values .* at row 2, column 0"):
        FeedForward((np.ones((2, 3)), np.where(np.arange(6).reshape(3, 2) == 4, np.inf, 0.0)))


def test_sources_without_a_ticket() -> None:
    draw = np.random.default_rng(0)
    with pytest.raises(OptionError, match="has 2 layers, and the source's 2: .* so 4"):
        feed_forward_ticket(net(0, 3, 3, 3), draw_source_feed_forward(draw, (3, 3), 12))
    with pytest.raises(OptionError, match="maps 3 values to 2, and its two source layers map 3 to 3"):
        feed_forward_ticket(net(0, 3, 2), draw_source_feed_forward(draw, (3, 3), 12))
    with pytest.raises(OptionError, match=r"wider than the source: each of its 3 inputs .* has 5. Draw one with \d+:"):
        feed_forward_ticket(net(0, 3, 3), draw_source_feed_forward(draw, (3, 3), 5))
    large = FeedForward((net(0, 3, 3).layers[0], 3 * net(1, 3, 3).layers[0]))
    with pytest.raises(OptionError, match="feed-forward layer 1 has a spectral norm of 3"):
        feed_forward_ticket(large, draw_source_feed_forward(draw, (3, 3, 3), 12))
    with pytest.raises(OptionError, match="45 items"):
        feed_forward_ticket(net(0, 1, 1), draw_source_feed_forward(draw, (1, 1), 90))


def test_blocks_that_do_not_fit() -> None:
    draw = np.random.default_rng(0)
    with pytest.raises(OptionError, match=r"attention \(in 3, out 3\) and of the feed-forward net \(in 3, out 2\)"):
        Block(draw_target(draw, 1, 3, 3, 3, 3), net(0, 3, 3, 2))
    blocks = draw_target_blocks(draw, 2, 1, 3)
    random = draw_source_blocks(draw, blocks, 12, 24)
    with pytest.raises(OptionError, match="The target has 2 blocks, the source 1"):
        block_tickets(blocks, random[:1])
    narrow = Block(draw_source(draw, 1, 3, 3, 2, 12), random[1].feed_forward)
    with pytest.raises(OptionError, match="Block 1: The target is wider than the source"):
        block_tickets(blocks, [random[0], narrow])
