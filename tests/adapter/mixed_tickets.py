"""Tickets of many kinds of units at once, drawn by hand: token rows, heads, neurons, norms and single weights."""

from collections.abc import Sequence

import numpy as np
from torch import nn

from ks_lottery.checkpoints.reader import ModelCheckpoint
from ks_lottery.ticket.identity import identify
from ks_lottery.ticket.ticket import Provenance, Selection, Ticket
from ks_lottery.units.slab import Slab, UnitGroup, parameters_of
from tests.adapter.tickets import INPUT_ROWS
from tests.tiny_models import VOCABULARY

Group = tuple[str, Sequence[Slab], int, Sequence[int]]
"""Name, slabs, number of units, chosen units."""


def hand_drawn(model: nn.Module, groups: Sequence[Group], granularity: str = "mixed") -> Ticket:
    """A ticket for this model, of the given groups."""
    checkpoint = ModelCheckpoint(model)
    selections = {
        name: Selection(UnitGroup(name, tuple(slabs), count), np.array(units)) for name, slabs, count, units in groups
    }
    base = identify(checkpoint, parameters_of([selection.group for selection in selections.values()]))
    return Ticket("update", granularity, selections, base, Provenance("by hand"))


def scattered(count: int, size: int, seed: int = 2) -> list[int]:
    """Sorted places drawn at random."""
    return sorted(np.random.default_rng(seed).choice(size, count, replace=False).tolist())


def llama_groups(tied: bool = False) -> list[Group]:
    """Of a tiny llama: 5 token rows, a head group, 3 neurons, a whole norm, and 40 + 200 single weights."""
    attention, feed_forward = "model.layers.0.self_attn.{}_proj.weight", "model.layers.0.mlp.{}_proj.weight"
    heads = [Slab(attention.format(name), 0, 16 if name == "q" else 8) for name in "qkv"]
    neurons = [Slab(feed_forward.format(name), 0) for name in ("gate", "up")]
    return [
        ("tied" if tied else "input", [Slab("model.embed_tokens.weight", 0)], VOCABULARY, INPUT_ROWS),
        ("layers.0.heads", [*heads, Slab(attention.format("o"), 1, 16)], 2, [1]),
        ("layers.0.neurons", [*neurons, Slab(feed_forward.format("down"), 1)], 48, [0, 7, 30]),
        ("layers.1.norm", [Slab("model.layers.1.input_layernorm.weight", 0, 32)], 1, [0]),
        ("few", [Slab("model.layers.1.mlp.up_proj.weight", None)], 48 * 32, scattered(40, 48 * 32)),
        ("many", [Slab("model.layers.1.self_attn.q_proj.weight", None)], 32 * 32, scattered(200, 32 * 32)),
    ]


def gpt2_groups() -> list[Group]:
    """Of a tiny GPT-2: token rows, a head, 3 neurons with their biases, a norm, and 40 + 400 single weights."""
    attention, feed_forward = "transformer.h.0.attn.", "transformer.h.0.mlp."
    fused = [Slab(f"{attention}c_attn.weight", 1, 16, start) for start in (0, 32, 64)]
    biases = [Slab(f"{attention}c_attn.bias", 0, 16, start) for start in (0, 32, 64)]
    hidden = [Slab(f"{feed_forward}c_fc.weight", 1), Slab(f"{feed_forward}c_fc.bias", 0)]
    norm = [Slab(f"transformer.h.1.ln_1.{leaf}", 0, 32) for leaf in ("weight", "bias")]
    return [
        ("tied", [Slab("transformer.wte.weight", 0)], VOCABULARY, INPUT_ROWS),
        ("h.0.heads", [*fused, *biases, Slab(f"{attention}c_proj.weight", 0, 16)], 2, [1]),
        ("h.0.neurons", [*hidden, Slab(f"{feed_forward}c_proj.weight", 0)], 128, [0, 7, 90]),
        ("h.1.norm", norm, 1, [0]),
        ("few", [Slab("transformer.h.1.mlp.c_fc.weight", None)], 32 * 128, scattered(40, 32 * 128)),
        ("many", [Slab("transformer.h.1.attn.c_attn.weight", None)], 32 * 96, scattered(400, 32 * 96)),
    ]
