"""The option `only`, matrix rows and weights: which groups there are, and which of them are taken."""

import pytest

from ks_lottery.errors import OptionError, UnitError, UnknownNameError
from ks_lottery.units.granularity import GRANULARITIES, granularity
from ks_lottery.units.heads import Heads
from ks_lottery.units.layout import ModelLayout
from ks_lottery.units.matrix_rows import MatrixRows
from ks_lottery.units.slab import Slab, UnitGroup
from ks_lottery.units.weights import Weights
from tests.units.models import layout_of, tiny

WITH_ONLY = [name for name in GRANULARITIES.names() if name != "token_rows"]


@pytest.mark.parametrize("name", WITH_ONLY)
def test_only_takes_the_groups_that_match_any_pattern(name: str) -> None:
    kind, layout = GRANULARITIES.get(name), layout_of("bart")
    every = kind().groups(layout)
    assert kind(only=("*",)).groups(layout)[0] in every or name == "weights"
    two = kind(only=(every[0].name, every[-1].name)).groups(layout)
    assert {group.name: group for group in two} == {group.name: group for group in (every[0], every[-1])}
    decoder = [group.name for group in kind(only=("*decoder*",)).groups(layout)]
    assert {group.name for group in every if "decoder" in group.name} <= set(decoder)
    assert all("decoder" in group for group in decoder)


@pytest.mark.parametrize("name", WITH_ONLY)
def test_patterns_that_match_nothing_or_are_none(name: str) -> None:
    kind = GRANULARITIES.get(name)
    with pytest.raises(UnitError, match=rf"units='{name}', only=\('\*', 'nowhere'\): 'nowhere' matches none of"):
        kind(only=("*", "nowhere")).groups(layout_of("llama"))
    for wrong in ("layers.0.*", (3,), None, ("",)):
        with pytest.raises(OptionError, match=rf"units='{name}', only=.* must be a tuple of patterns of group names"):
            kind(only=wrong)


def test_messages_show_a_few_names() -> None:
    with pytest.raises(UnitError, match=r"of the 2 groups of this model: layers.0.heads, layers.1.heads\.$"):
        Heads(only=("layers.7.heads",)).groups(layout_of("llama"))
    with pytest.raises(UnitError, match=r"none of the 14 groups of this model: .*, \.\.\.\.$"):
        MatrixRows(only=("layers.7.*",)).groups(layout_of("llama"))


def test_options_survive_json_as_lists() -> None:
    assert Heads(only=["layers.0.*"]).groups(layout_of("llama"))[0].name == "layers.0.heads"  # type: ignore[arg-type]


def test_matrix_rows_are_outputs() -> None:
    rows = {group.name: group for group in granularity("matrix_rows").groups(layout_of("gpt2"))}
    assert rows["transformer.h.1.mlp.c_fc.weight"].num_units == 12
    assert rows["transformer.h.1.mlp.c_fc.weight"].slabs == (Slab("transformer.h.1.mlp.c_fc.weight", 1),)
    rows = {group.name: group for group in granularity("matrix_rows").groups(layout_of("llama"))}
    assert rows["model.layers.1.mlp.up_proj.weight"].slabs == (Slab("model.layers.1.mlp.up_proj.weight", 0),)
    rows = {group.name: group for group in granularity("matrix_rows").groups(layout_of("mixtral"))}
    down = "model.layers.1.mlp.experts.down_proj"
    assert rows[f"{down}.2"] == UnitGroup(f"{down}.2", (Slab(down, 1, lead=(2,)),), 16)
    assert rows["model.layers.1.mlp.gate.weight"].num_units == 3


def test_weights_reach_every_parameter_if_asked() -> None:
    layout = layout_of("bert")
    default = Weights().groups(layout)
    assert {group.slabs[0] for group in default} == {Slab(group.name, None) for group in default}
    assert all(group.name.endswith(".weight") and len(layout.shapes[group.name]) == 2 for group in default)
    every = Weights(only=("*",)).groups(layout)
    assert sum(group.num_units for group in every) == sum(weight.numel() for weight in tiny("bert").parameters())
    head = {group.name: group.num_units for group in Weights(only=("classifier.*",)).groups(layout)}
    assert head == {"classifier.weight": 32, "classifier.bias": 2}


def test_weights_of_an_architecture_that_nobody_knows() -> None:
    layout = ModelLayout("unheard-of", {"a.weight": (2, 3), "scale": ()}, tied=False)
    assert [group.num_units for group in Weights(only=("*",)).groups(layout)] == [6, 1]
    with pytest.raises(UnknownNameError, match="Unknown architecture 'unheard-of'"):
        Weights().groups(layout)
