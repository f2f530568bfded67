"""Strong tickets of a transformer without normalisation: blocks of attention and ReLU nets, each with a residual."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ks_lottery.errors import OptionError
from ks_lottery.theory.attention import (
    AttentionTicket,
    attention_ticket,
    draw_source,
    draw_target,
    require_unit_norm,
    unit_norm,
)
from ks_lottery.theory.attention_heads import AttentionHeads, require_finite
from ks_lottery.theory.bounds import attention_block_widths
from ks_lottery.theory.subset_sum import MOST_ITEMS, solve

_EXAMPLE_EPS = 0.01


@dataclass(frozen=True)
class FeedForward:
    """A net of linear layers without biases, with ReLU between them and none after the last.

    Args:
        layers: [d_in, d_out] float each; for X @ layer.

    Raises:
        OptionError: if there is no layer, or one does not fit the next.
        DataError: if a weight is NaN or infinite.
    """

    layers: tuple[np.ndarray, ...]

    def __post_init__(self) -> None:
        shapes = [layer.shape for layer in self.layers]
        if not shapes or any(one[1] != other[0] for one, other in pairwise(shapes)):
            raise OptionError(
                f"The layers of a feed-forward net have the shapes {shapes}: there is to be at least one, and each is "
                "to have as many rows as the one before has columns."
            )
        for number, layer in enumerate(self.layers):
            require_finite(layer, f"layer {number} of the feed-forward net", ("row", "column"))

    def forward(self, tokens: np.ndarray) -> np.ndarray:
        """[..., d_in] to [..., d_out] float64."""
        *inner, last = self.layers
        for layer in inner:
            tokens = np.maximum(tokens @ layer, 0.0)
        return tokens @ last


@dataclass(frozen=True)
class FeedForwardTicket:
    """Masks of a random feed-forward net of twice the depth.

    Attributes:
        target: what was to be approximated.
        source: the random net, untouched.
        masks: [rows, columns] bool for each layer of the source.
    """

    target: FeedForward
    source: FeedForward
    masks: tuple[np.ndarray, ...]

    def feed_forward(self) -> FeedForward:
        """The source with zeros for all that the masks do not keep."""
        return FeedForward(
            tuple(np.where(mask, layer, 0.0) for mask, layer in zip(self.masks, self.source.layers, strict=True))
        )


@dataclass(frozen=True)
class Block:
    """One block: y = x + attention(x), then y + feed_forward(y).

    Args:
        attention: for tokens of one width, in and out.
        feed_forward: as wide in and out.

    Raises:
        OptionError: if the widths differ.
    """

    attention: AttentionHeads
    feed_forward: FeedForward

    def __post_init__(self) -> None:
        attention, layers = self.attention, self.feed_forward.layers
        widths = (attention.d_in, attention.d_out, layers[0].shape[0], layers[-1].shape[1])
        if len(set(widths)) > 1:
            raise OptionError(
                f"A block adds its input to its output twice, so the widths of attention (in {widths[0]}, out "
                f"{widths[1]}) and of the feed-forward net (in {widths[2]}, out {widths[3]}) are to be equal."
            )

    def forward(self, tokens: np.ndarray, allowed: np.ndarray | None = None) -> np.ndarray:
        """[..., T, d] to [..., T, d] float64; `allowed` as in AttentionHeads.forward."""
        tokens = tokens + self.attention.forward(tokens, allowed)
        return tokens + self.feed_forward.forward(tokens)


@dataclass(frozen=True)
class BlockTicket:
    """The tickets of a block's two halves."""

    attention: AttentionTicket
    feed_forward: FeedForwardTicket

    def block(self) -> Block:
        """The source block under its masks."""
        return Block(self.attention.attention(), self.feed_forward.feed_forward())


def transformer(blocks: Sequence[Block], tokens: np.ndarray, allowed: np.ndarray | None = None) -> list[np.ndarray]:
    """Run blocks one after another, without normalisation.

    Args:
        blocks: the blocks; residual connections add no weight that could be masked.
        tokens: [..., T, d] float.
        allowed: attention mask, as in AttentionHeads.forward.

    Returns:
        [..., T, d] float64 after each block.
    """
    states = []
    for block in blocks:
        tokens = block.forward(tokens, allowed)
        states.append(tokens)
    return states


def draw_target_blocks(draw: np.random.Generator, blocks: int, heads: int, d: int, layers: int = 2) -> list[Block]:
    """Random blocks whose matrices, all d wide, have a spectral norm of 1.

    Args:
        draw: where the numbers come from.
        blocks: number of blocks.
        heads: of each block.
        d: width of tokens, of every head's projections, and of the feed-forward layers.
        layers: of each feed-forward net.
    """
    return [
        Block(
            draw_target(draw, heads, d, d, d, d),
            FeedForward(tuple(unit_norm(draw.standard_normal((layers, d, d))))),
        )
        for _ in range(blocks)
    ]  # fmt: skip


def draw_source_feed_forward(draw: np.random.Generator, widths: Sequence[int], hidden: int) -> FeedForward:
    """Random net of twice the depth of a target with the given widths; all weights from U[-1, 1].

    Args:
        draw: where the numbers come from.
        widths: of the target: of its input, and of each of its layers.
        hidden: width of the layer that is put before each layer of the target.
    """
    layers = []
    for d_in, d_out in pairwise(widths):
        layers += [draw.uniform(-1, 1, (d_in, hidden)), draw.uniform(-1, 1, (hidden, d_out))]
    return FeedForward(tuple(layers))


def draw_source_blocks(
    draw: np.random.Generator, target: Sequence[Block], attention: int, feed_forward: int
) -> list[Block]:
    """Random blocks, as many as the target has, of which tickets are made.

    Args:
        draw: where the numbers come from.
        target: the blocks that are to be approximated.
        attention: n_key and n_value of every source head.
        feed_forward: width of the layer that is put before each layer of a target's feed-forward net.
    """
    blocks = []
    for block in target:
        heads = block.attention
        widths = [heads.d_in, *(layer.shape[1] for layer in block.feed_forward.layers)]
        blocks.append(
            Block(
                draw_source(draw, heads.heads, heads.d_in, heads.d_out, attention, attention),
                draw_source_feed_forward(draw, widths, feed_forward),
            )
        )
    return blocks


def feed_forward_ticket(target: FeedForward, source: FeedForward) -> FeedForwardTicket:
    """Masks of a random net of twice the depth that comes near to a feed-forward net.

    Input j of a target layer takes hidden units of its own: those whose first weight is above 0 carry relu(x_j), those
    below 0 carry relu(-x_j), as many of either sign as hidden // (2 * d_in), or fewer where the draw has no more. For
    each target weight a subset sum is solved over either half, since w x = w relu(x) - w relu(-x). Hidden units that
    are left over are not kept.

    Args:
        target: layers with spectral norms of at most 1.
        source: two layers for each of the target's, the first of them wider; of `draw_source_feed_forward`.

    Raises:
        OptionError: if the source has another depth or other outer widths, has fewer than two hidden units for each
            input, a target layer has a spectral norm above 1, or there are more items than the exact solver takes.

    Source:
        Pensia et al. 2020, arXiv 2006.07990; in the form of Otsuka et al. 2025, arXiv 2511.04217, Lemma 7.
    """
    if len(source.layers) != 2 * len(target.layers):
        raise OptionError(
            f"The target's feed-forward net has {len(target.layers)} layers, and the source's {len(source.layers)}: a "
            f"ticket takes two random layers for each, so {2 * len(target.layers)}."
        )
    masks = []
    for number, layer in enumerate(target.layers):
        first, second = source.layers[2 * number : 2 * number + 2]
        require_unit_norm(layer, f"feed-forward layer {number}")
        _require_hidden(number, layer, first, second)
        masks += _relu_pair_masks(first, second, layer)
    return FeedForwardTicket(target, source, tuple(masks))


def block_tickets(target: Sequence[Block], source: Sequence[Block]) -> list[BlockTicket]:
    """Tickets of all blocks of a transformer, each on its own.

    Args:
        target: blocks with spectral norms of at most 1.
        source: as many random blocks, of `draw_source_blocks`.

    Raises:
        OptionError: if there are not as many, or a half of a block has no ticket; the message names the block.

    Source:
        Otsuka et al. 2025, arXiv 2511.04217, Theorems 11 and 14.
    """
    if len(target) != len(source):
        raise OptionError(f"The target has {len(target)} blocks, the source {len(source)}. Draw as many.")
    tickets = []
    for number, (wanted, random) in enumerate(zip(target, source, strict=True)):
        try:
            tickets.append(
                BlockTicket(
                    attention_ticket(wanted.attention, random.attention),
                    feed_forward_ticket(wanted.feed_forward, random.feed_forward),
                )
            )
        except OptionError as error:
            raise OptionError(f"Block {number}: {error}") from error
    return tickets


def _relu_pair_masks(first: np.ndarray, second: np.ndarray, wanted: np.ndarray) -> list[np.ndarray]:
    """Masks of [d_in, hidden] and [hidden, d_out] such that the pair with a ReLU between comes near to `wanted`."""
    d_in, hidden = first.shape
    first_mask, second_mask = np.zeros(first.shape, dtype=bool), np.zeros(second.shape, dtype=bool)
    free = np.ones(hidden, dtype=bool)
    halves = []
    for row in range(d_in):
        for positive in (True, False):
            units = np.flatnonzero(free & ((first[row] > 0) == positive))[: hidden // (2 * d_in)]
            free[units] = False
            first_mask[row, units] = True
            halves.append((row, units))
    longest = max(len(units) for _, units in halves)
    items = np.zeros((len(halves), wanted.shape[1], longest))
    for place, (row, units) in enumerate(halves):
        items[place, :, : len(units)] = (first[row, units, None] * second[units]).T
    targets = np.stack([wanted[row] for row, _ in halves])
    chosen = solve(items.reshape(-1, longest), targets.reshape(-1)).mask.reshape(items.shape)
    for place, (_, units) in enumerate(halves):
        second_mask[units] = chosen[place, :, : len(units)].T
    return [first_mask, second_mask]


def _require_hidden(number: int, layer: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
    d_in, d_out = layer.shape
    if (first.shape[0], second.shape[1]) != (d_in, d_out):
        raise OptionError(
            f"Feed-forward layer {number} of the target maps {d_in} values to {d_out}, and its two source layers map "
            f"{first.shape[0]} to {second.shape[1]}. Draw a source with the widths of the target."
        )
    if first.shape[1] < 2 * d_in:
        alpha, most = math.sqrt(max(d_in, d_out)), 2 * MOST_ITEMS * d_in
        rule = attention_block_widths(max(d_in, d_out), 1, alpha, 1, _EXAMPLE_EPS).feed_forward
        raise OptionError(
            f"Feed-forward layer {number} of the target is wider than the source: each of its {d_in} inputs needs two "
            f"hidden units of its own, one for either sign, but the source has {first.shape[1]}. Draw one with "
            f"{min(rule, most)}: the theorem's rule gives {rule} for an error of {_EXAMPLE_EPS}, and the exact solver "
            f"takes up to {most}."
        )
