"""Heads: a unit is what a gate on the heads' outputs switches off, in every architecture; wrong numbers are refused."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from ks_lottery.errors import UnitError
from ks_lottery.units.heads import Heads
from ks_lottery.units.layout import ModelLayout
from ks_lottery.units.slab import Slab, UnitGroup
from tests.units.models import CASES, changed, gated, layout_of, outputs, read_by, tiny, zeroed

SHARED_NORM = {"olmo2"}


def groups_of(case: str) -> tuple[UnitGroup, ...]:
    return Heads().groups(layout_of(case))


def sublayers(case: str) -> Iterator[tuple[UnitGroup, torch.nn.Module, Tensor, list[slice]]]:
    """Of each attention sublayer of the last blocks: its units, the output projection, what it reads, units in that."""
    for group in Heads(only=("*layers.1.*",)).groups(layout_of(case)):
        module = tiny(case).get_submodule(group.slabs[-1].parameter.removesuffix(".weight"))
        values = read_by(case, module)
        width = values.shape[-1] // group.num_units
        yield group, module, values, [slice(unit * width, (unit + 1) * width) for unit in range(group.num_units)]


@pytest.mark.parametrize("case", CASES)
def test_gating_a_unit_equals_zeroing_its_slabs(case: str) -> None:
    before = outputs(case)
    for group, module, _, columns in sublayers(case):
        for unit, own in enumerate(columns):
            gate = gated(case, module, own)
            torch.testing.assert_close(zeroed(case, group.slabs[-1:], unit), gate, rtol=0, atol=1e-6)
            if case not in SHARED_NORM:
                torch.testing.assert_close(zeroed(case, group.slabs, unit), gate, rtol=0, atol=1e-6)
            assert (gate - before).abs().max() > 1e-5


@pytest.mark.parametrize("case", [case for case in CASES if case not in SHARED_NORM])
def test_the_slabs_of_a_unit_decide_its_heads_and_no_others(case: str) -> None:
    for group, module, before, columns in sublayers(case):
        for unit, own in enumerate(columns):
            units = np.array([unit])
            with changed(case) as parameters:
                for slab in group.slabs[:-1]:
                    parameter = parameters[slab.parameter]
                    slab.put(parameter, units, -1.5 * slab.take(parameter, units))
                after = read_by(case, module)
                for slab in group.slabs[:-1]:
                    slab.fill(parameters[slab.parameter], units, 0.0)
                silent = read_by(case, module)
            moved = (after != before).flatten(0, -2).any(0)
            assert moved[own].all()
            assert int(moved.sum()) == own.stop - own.start
            assert not silent[..., own].any()


def test_olmo2_normalises_all_heads_together() -> None:
    ((group, module, _, columns),) = sublayers("olmo2")
    assert Slab("model.layers.1.self_attn.q_norm.weight", 0, 16) in group.slabs
    assert Slab("model.layers.1.self_attn.k_norm.weight", 0, 8) in group.slabs
    gate = gated("olmo2", module, columns[0])
    assert (zeroed("olmo2", group.slabs, 0) - gate).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("case", "counts"),
    [
        ("llama", {"layers.0.heads": 2, "layers.1.heads": 2}),
        ("gpt2", {"layers.0.heads": 4, "layers.1.heads": 4}),
        (
            "bart",
            {
                "encoder.layers.0.heads": 4,
                "encoder.layers.1.heads": 4,
                "decoder.layers.0.heads": 2,
                "decoder.layers.0.cross_heads": 2,
                "decoder.layers.1.heads": 2,
                "decoder.layers.1.cross_heads": 2,
            },
        ),
    ],
)
def test_one_group_per_attention_sublayer(case: str, counts: dict[str, int]) -> None:
    assert {group.name: group.num_units for group in groups_of(case)} == counts


@pytest.mark.parametrize(
    ("case", "place", "slabs"),
    [
        ("llama", "model.layers.0.self_attn.", [
            ("q_proj.weight", 0, 16, 0), ("k_proj.weight", 0, 8, 0), ("v_proj.weight", 0, 8, 0),
            ("o_proj.weight", 1, 16, 0),
        ]),
        ("qwen2", "model.layers.0.self_attn.", [
            ("q_proj.weight", 0, 16, 0), ("q_proj.bias", 0, 16, 0), ("k_proj.weight", 0, 8, 0),
            ("k_proj.bias", 0, 8, 0), ("v_proj.weight", 0, 8, 0), ("v_proj.bias", 0, 8, 0), ("o_proj.weight", 1, 16, 0),
        ]),
        ("phi3", "model.layers.0.self_attn.", [
            ("qkv_proj.weight", 0, 16, 0), ("qkv_proj.weight", 0, 8, 32), ("qkv_proj.weight", 0, 8, 48),
            ("o_proj.weight", 1, 16, 0),
        ]),
        ("gpt2", "transformer.h.0.attn.", [
            ("c_attn.weight", 1, 4, 0), ("c_attn.bias", 0, 4, 0), ("c_attn.weight", 1, 4, 16),
            ("c_attn.bias", 0, 4, 16), ("c_attn.weight", 1, 4, 32), ("c_attn.bias", 0, 4, 32),
            ("c_proj.weight", 0, 4, 0),
        ]),
        ("gpt_neox", "gpt_neox.layers.0.attention.", [
            ("query_key_value.weight", 0, 12, 0), ("query_key_value.bias", 0, 12, 0), ("dense.weight", 1, 4, 0),
        ]),
    ],
)  # fmt: skip
def test_slabs_in_order(case: str, place: str, slabs: list[tuple[str, int, int, int]]) -> None:
    assert groups_of(case)[0].slabs == tuple(Slab(f"{place}{name}", *rest) for name, *rest in slabs)


def test_relative_positions_of_deberta_have_heads() -> None:
    (group, _) = groups_of("deberta-v2 with relative positions")
    place = "deberta.encoder.layer.0.attention.self"
    beside = [Slab(f"{place}.pos_{name}_proj.{part}", 0, 4) for name in ("query", "key") for part in ("weight", "bias")]
    assert [slab for slab in group.slabs if ".pos_" in slab.parameter] == beside


LLAMA = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}


@pytest.mark.parametrize(
    ("case", "config", "message"),
    [
        ("llama", {}, "does not say how many heads it has: its config holds no 'num_attention_heads'. Open the model"),
        ("llama", {**LLAMA, "num_key_value_heads": 3}, "=4 query heads do not divide among its num_key_value_heads=3"),
        ("llama", {**LLAMA, "head_dim": 16}, "reads 32 values, which are not num_attention_heads=4 heads of 16"),
        ("llama", {"num_attention_heads": 5}, "reads 32 values, which are not num_attention_heads=5 heads of 6"),
        ("llama", {"num_attention_heads": 4}, r"k_proj.weight' of shape \(16, 16\) has 16 outputs, but .* need 32"),
        ("llama", {**LLAMA, "num_attention_heads": 2, "head_dim": 16}, "has 16 outputs, but the heads .* need 32"),
        ("phi3", {**LLAMA, "num_key_value_heads": 4}, r"of shape \(64, 16\) has 64 outputs, but the heads .* need 96"),
        ("gpt2", {"n_head": 4, "num_key_value_heads": 2}, r"of shape \(16, 48\) has 48 outputs, but .* need 32"),
        ("bloom", {"n_head": 3}, "reads 16 values, which are not n_head=3 heads of 5"),
        ("olmo2", {**LLAMA, "num_key_value_heads": 1}, "has 16 outputs, but the heads of this 'olmo2' model need 8"),
    ],
)
def test_numbers_of_heads_that_do_not_fit(case: str, config: dict[str, int], message: str) -> None:
    layout = replace(layout_of(case), config=lambda: config)
    with pytest.raises(UnitError, match=message):
        Heads().groups(layout)


def test_parameters_beside_the_heads_that_do_not_fit() -> None:
    layout = layout_of("olmo2")
    shapes = {**layout.shapes, "model.layers.1.self_attn.q_norm.weight": (8,)}
    with pytest.raises(UnitError, match="q_norm.weight' has 8 rows, but 2 units of 16 need 32"):
        Heads().groups(replace(layout, shapes=shapes))


def test_packed_matrices_are_refused() -> None:
    layout = layout_of("llama")
    shapes = {**layout.shapes, "model.layers.0.self_attn.o_proj.weight": (256,)}
    with pytest.raises(UnitError, match=r"should be a \[outputs, inputs\] matrix, but has shape \(256,\)"):
        Heads().groups(replace(layout, shapes=shapes))


def test_heads_without_a_key_value_count_are_single() -> None:
    shapes = {f"model.layers.0.self_attn.{name}_proj.weight": (6, 6) for name in "qkvo"}
    (group,) = Heads().groups(ModelLayout("llama", shapes, tied=False, config=lambda: {"num_attention_heads": 3}))
    assert (group.num_units, {slab.width for slab in group.slabs}) == (3, {2})
