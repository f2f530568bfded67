"""What a ticket selects is counted layer by layer."""

import pytest

from ks_lottery.ticket.layer_shares import layer_of, layer_shares
from tests.adapter.weight_tickets import weight_ticket
from tests.tiny_models import tiny_llama


@pytest.mark.parametrize(
    ("group", "layer"),
    [
        ("input", "input"), ("lm_head.weight", "lm_head.weight"), ("layers.3.heads", "layers.3"),
        ("layers.3", "layers.3"), ("decoder.layers.12.cross_heads", "decoder.layers.12"),
        ("layers.3.experts.5.neurons", "layers.3"),
        ("model.layers.3.mlp.up_proj.weight", "model.layers.3"), ("h.0.attn.c_attn.weight", "h.0"),
    ],
)  # fmt: skip
def test_the_layer_of_a_group(group: str, layer: str) -> None:
    assert layer_of(group) == layer


def test_units_and_weights_of_each_layer() -> None:
    ticket = weight_ticket(tiny_llama(), "heads", lambda group: [0] if group.name == "layers.1.heads" else [])
    first, second = layer_shares(ticket)
    assert (first.layer, first.units, first.of_units, first.share) == ("layers.0", 0, 2, 0.0)
    assert (second.layer, second.units, second.of_units, second.share) == ("layers.1", 1, 2, 0.5)
    assert second.to_dict() == {
        "layer": "layers.1", "units": 1, "of_units": 2, "weights": 1536, "of_weights": 3072, "share": 0.5
    }  # fmt: skip


def test_groups_of_one_layer_count_together() -> None:
    ticket = weight_ticket(tiny_llama(), "matrix_rows", lambda group: [0, 1])
    shares = layer_shares(ticket)
    assert [one.layer for one in shares] == ["model.layers.0", "model.layers.1"]
    assert sum(one.weights for one in shares) == ticket.num_trainable()
    assert [one.units for one in shares] == [14, 14]
