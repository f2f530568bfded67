"""What removing units leaves: exactly the weights that no removed unit owns, or a refusal that says why."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ks_lottery.errors import UnitError
from ks_lottery.units.architecture import architectures
from ks_lottery.units.granularity import granularity
from ks_lottery.units.layout import ModelLayout
from ks_lottery.units.removal import _KEYS, Removal, removal
from ks_lottery.units.slab import UnitGroup
from tests.units.models import CASES, layout_of

Kept = dict[str, np.ndarray]
WIDE = ["llama with biases", "phi3", "mixtral", "gemma3", "gpt2", "gated t5", "bart", "vit"]


def groups_of(layout: ModelLayout, units: str) -> tuple[UnitGroup, ...]:
    return tuple(granularity(units).groups(layout))


def each(layout: ModelLayout, units: str, choose: Callable[[UnitGroup], Any]) -> Kept:
    return {group.name: np.asarray(choose(group), dtype=np.int64) for group in groups_of(layout, units)}


def plan(case: str, units: str, choose: Callable[[UnitGroup], Any], **config: Any) -> Removal:
    layout = layout_of(case)
    said = {**layout.config(), **config}
    layout = replace(layout, config=lambda: said)
    return removal(layout, units, each(layout, units, choose))


def left_by_zeros(layout: ModelLayout, units: str, kept: Kept) -> dict[str, np.ndarray]:
    """Numbers of the weights of each parameter that no removed unit owns, in order."""
    numbers: dict[str, np.ndarray] = {}
    for group in groups_of(layout, units):
        gone = np.setdiff1d(np.arange(group.num_units), kept[group.name])
        for slab in group.slabs:
            shape = layout.shape(slab.parameter)
            values = numbers.setdefault(slab.parameter, np.arange(np.prod(shape)).reshape(shape))
            slab.fill(values, gone, -1)
    return {name: values[values >= 0] for name, values in numbers.items()}


@settings(max_examples=25, deadline=None)
@given(
    case=st.sampled_from(WIDE),
    units=st.sampled_from(["heads", "neurons"]),
    quarters=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_left_is_what_no_removed_unit_owns(case: str, units: str, quarters: int, seed: int) -> None:
    if CASES[case][0] in ("gpt2", "bart", "t5"):
        units = "neurons"
    layout, generator = layout_of(case), np.random.default_rng(seed)
    kept = each(
        layout,
        units,
        lambda group: np.sort(generator.permutation(group.num_units)[: max(1, group.num_units * quarters // 4)]),
    )
    result = removal(layout, units, kept)
    assert result.names == {name: name for name in layout.shapes}
    for name, expected in left_by_zeros(layout, units, kept).items():
        shape = layout.shape(name)
        values = np.arange(np.prod(shape)).reshape(shape)
        if name in result.cuts:
            cut = result.cuts[name]
            rows = [values.take(cut.kept[0], cut.dim)]
            if len(cut.kept) > 1:
                rows = [values[e].take(kept, cut.dim - 1) for e, kept in enumerate(cut.kept)]
            values = np.concatenate([row.reshape(-1) for row in rows])
            assert np.prod(cut.shape(shape)) == len(values)
        assert np.array_equal(values.reshape(-1), expected)


def test_what_the_configuration_says() -> None:
    assert plan("llama", "heads", lambda _: [1]).config == {
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8
    }  # fmt: skip
    assert plan("vit", "heads", lambda _: [0, 1]).config == {"num_attention_heads": 2, "head_dim": 4}
    assert plan("t5", "heads", lambda _: [0, 2]).config == {"num_heads": 2, "d_kv": 8}
    assert plan("t5", "neurons", lambda _: [0, 2]).config == {"d_ff": 2}
    bart = plan("bart", "neurons", lambda group: [3] if group.name.startswith("encoder") else [1, 2])
    assert bart.config == {"encoder_ffn_dim": 1, "decoder_ffn_dim": 2}
    mbart = plan("mbart", "layers", lambda group: [] if group.name == "decoder.layers.0" else [0])
    assert mbart.config == {"encoder_layers": 2, "decoder_layers": 1}


def test_layers_are_numbered_anew_and_lists_of_them_shrink() -> None:
    result = plan("smollm3", "layers", lambda group: [0] if group.name == "layers.1" else [], no_rope_layers=[1, 0])
    assert result.config == {"num_hidden_layers": 1, "no_rope_layers": [0], "layer_types": ["full_attention"]}
    assert result.names["model.layers.1.mlp.up_proj.weight"] == "model.layers.0.mlp.up_proj.weight"
    assert not [name for name in result.names if name.startswith("model.layers.0.")]
    assert result.names["model.norm.weight"] == "model.norm.weight"
    assert not result.cuts


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("units", ["heads", "neurons", "layers"])
def test_nothing_removed_is_nothing_changed(case: str, units: str) -> None:
    layout = layout_of(case)
    assert removal(layout, units, {}) == Removal({name: name for name in layout.shapes}, {}, {})


def test_all_heads_of_a_t5_stack_share_a_table() -> None:
    result = plan("t5", "heads", lambda group: [0, 3] if group.name.startswith("encoder") else [1, 2])
    place = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    for stack, kept in (("encoder", [0, 3]), ("decoder", [1, 2])):
        cut = result.cuts[f"{stack}.{place}"]
        assert (cut.dim, cut.kept[0].tolist()) == (1, kept)
    assert plan("t5", "heads", lambda group: [2, 3] if "cross" in group.name else [0, 1]).config["num_heads"] == 2
    message = (
        r"decoder read one table .* decoder.layers.0.heads keeps the heads \[0\] and decoder.layers.1.heads keeps \[1"
    )
    with pytest.raises(UnitError, match=message):
        plan("t5", "heads", lambda group: [1] if group.name == "decoder.layers.1.heads" else [0])


REFUSALS: list[tuple[str, str, Callable[[UnitGroup], Any], dict[str, Any], str]] = [
    ("llama", "token_rows", lambda _: [0], {}, "'token_rows': only heads, neurons and layers can be removed"),
    ("gpt2", "heads", lambda _: [0], {}, "'gpt2' model cannot have fewer heads: its configuration has no key for the"),
    ("bloom", "neurons", lambda _: [0], {}, "'bloom' model cannot have fewer neurons: .* four times the hidden size"),
    ("olmo2", "heads", lambda _: [0], {}, "cannot have fewer heads: .* one norm stands before all heads of a layer"),
    ("bert", "layers", lambda group: [0] * (group.name == "layers.0"), {}, "fewer layers: .* normalises the sum"),
    (
        "llama", "heads", lambda group: [0] if "1" in group.name else [0, 1], {},
        r"one 'num_attention_heads' for all layers, but they keep .*: layers.0.heads 2 of 2, layers.1.heads 1 of 2\. "
        r"Select equally many in each, with TopK\(k, scope='group'\) .* zero_checkpoint\(source, ticket, folder\)",
    ),
    (
        "mixtral", "neurons", lambda group: range(4 + (group.name == "layers.1.experts.2.neurons")), {},
        "one 'intermediate_size' for all layers, .*layers.1.experts.1.neurons 4 of 12, layers.1.experts.2.neurons 5 of",
    ),
    (
        "bart", "neurons", lambda group: [0] if "encoder" in group.name else [], {},
        "Nothing would be left: decoder.layers.0.neurons and all that share 'decoder_ffn_dim' with it keep no unit",
    ),
    ("llama", "heads", lambda _: [], {}, "Nothing would be left: layers.0.heads and all"),
    ("llama", "layers", lambda _: [], {}, "Nothing would be left: no layer of the model is kept, of 2"),
    ("mbart", "layers", lambda g: [0] * ("encoder" in g.name), {}, "no layer of the decoder is kept, of 2"),
    (
        "llama", "layers", lambda g: [0] * ("1" in g.name), {"num_hidden_layers": 1},
        "holds 2 layers of the model, but its configuration says 1",
    ),
    (
        "t5", "layers", lambda g: [0] * (g.name != "decoder.layers.0"), {},
        r"first layer of the decoder holds the table of relative positions .* only the layers \[1\] are kept",
    ),
    ("opt", "layers", lambda g: [0] * ("1" in g.name), {"do_layer_norm_before": False}, "With do_layer_norm_before=F"),
    (
        "bloom", "layers", lambda g: [0] * ("1" in g.name), {"apply_residual_connection_post_layernorm": True},
        "With apply_residual_connection_post_layernorm=True, the other layers of a 'bloom' model compute something",
    ),
    (
        "gpt2", "layers", lambda g: [0] * ("1" in g.name), {"scale_attn_by_inverse_layer_idx": True},
        "With scale_attn_by_inverse_layer_idx=True",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("case", "units", "choose", "config", "message"), REFUSALS)
def test_what_cannot_be_expressed_is_refused(
    case: str, units: str, choose: Callable[[UnitGroup], Any], config: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnitError, match=message):
        plan(case, units, choose, **config)


def test_an_architecture_without_known_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(_KEYS, "qwen3")
    with pytest.raises(UnitError, match="Which sizes the configuration of a 'qwen3' model can express is not known"):
        plan("qwen3", "heads", lambda _: [0])


def test_every_architecture_of_the_table_has_an_answer() -> None:
    assert set(_KEYS) == {name for name in architectures() if "martian" not in name}
