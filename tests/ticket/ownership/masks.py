"""Magnitude tickets of random square matrices, for the tests of marks."""

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.ticket.identity import identify
from ks_lottery.ticket.ownership.mark import magnitudes
from ks_lottery.ticket.ticket import Kind, Provenance, Selection, Ticket
from ks_lottery.units.slab import parameters_of
from ks_lottery.units.weights import Weights

QUERY = "model.layers.0.self_attn.q_proj.weight"
OWNER = "Ada Lovelace, London"
SECRET = bytes(range(32))


def gaussian_model(seed: int = 0, width: int = 128) -> LlamaForCausalLM:
    """A Llama of one layer whose query projection is a [width, width] matrix of independent normal numbers."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=16, hidden_size=width, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=16, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def magnitude_ticket(
    model: LlamaForCausalLM, density: float, only: str = "*.q_proj.weight", kind: Kind = "weight"
) -> Ticket:
    """The largest weights of each matrix."""
    checkpoint = open_checkpoint(model)
    groups = Weights(only=(only,)).groups(checkpoint.layout())
    selections = {}
    for group in groups:
        order = np.argsort(-magnitudes(checkpoint, group.name).ravel(), kind="stable")
        selections[group.name] = Selection(group, order[: round(density * group.num_units)])
    return Ticket(kind, "weights", selections, identify(checkpoint, parameters_of(groups)), Provenance("magnitude"))
