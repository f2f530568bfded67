"""The table of architectures: registering, live names of stored ones, and models that do not fit their entry."""

from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.errors import UnitError, UnknownNameError
from ks_lottery.units.architecture import Architecture, architecture, live_names, register_architecture
from ks_lottery.units.granularity import granularity
from ks_lottery.units.layout import ModelLayout
from tests.units.models import CASES, layout_of, tiny


def test_the_error_for_an_unknown_architecture_holds_code_that_registers_it() -> None:
    llama = layout_of("llama")
    strange = replace(llama, model_type="martian-2")
    for name in ("heads", "neurons", "layers", "matrix_rows", "weights", "token_rows"):
        with pytest.raises(UnknownNameError, match="Unknown architecture 'martian-2'; known: bart, .*. Add it with"):
            granularity(name).groups(strange)
    with pytest.raises(UnknownNameError) as error:
        architecture("martian-2")
    code = str(error.value).partition("\n\n")[2]
    assert code.count("\n") < 10
    exec(code, {})
    for name in ("heads", "neurons", "layers", "matrix_rows", "weights", "token_rows"):
        assert granularity(name).groups(strange) == granularity(name).groups(llama)


def test_an_architecture_without_blocks_has_only_token_rows() -> None:
    register_architecture("blockless martian", Architecture("words.weight", "head.weight"))
    layout = ModelLayout("blockless martian", {"words.weight": (5, 3)}, tied=False)
    assert granularity("token_rows").groups(layout)[0].num_units == 5
    for name in ("heads", "neurons", "layers", "matrix_rows", "weights"):
        with pytest.raises(UnitError, match=r"registered without its blocks, so only its token rows .* stacks=\(Stack"):
            granularity(name).groups(layout)


def test_models_that_lack_blocks() -> None:
    layout = layout_of("t5")
    none = {name: shape for name, shape in layout.shapes.items() if ".block." not in name}
    with pytest.raises(UnitError, match="no parameter below 'encoder.block' or 'decoder.block'; it has .*shared"):
        granularity("layers").groups(replace(layout, shapes=none))
    first = {name: shape for name, shape in layout.shapes.items() if "encoder.block.0" not in name}
    with pytest.raises(UnitError, match="has 1 blocks below 'encoder.block.', but none with number 0"):
        granularity("layers").groups(replace(layout, shapes=first))
    encoder = {name: shape for name, shape in layout.shapes.items() if not name.startswith("decoder")}
    names = [group.name for group in granularity("heads").groups(replace(layout, shapes=encoder))]
    assert names == ["encoder.layers.0.heads", "encoder.layers.1.heads"]


def test_bare_models_have_the_names_without_the_first_part() -> None:
    for bare, full, first in (("bare bert", "bert", "bert."), ("bare llama", "llama", "model.")):
        for name in ("heads", "neurons", "layers"):
            short, long = granularity(name).groups(layout_of(bare)), granularity(name).groups(layout_of(full))
            assert [group.name for group in short] == [group.name for group in long]
            assert [f"{first}{slab.parameter}" for group in short for slab in group.slabs] == [
                slab.parameter for group in long for slab in group.slabs
            ]


# Files of these hold each expert on its own; no name of one tensor is the name of another.
SPLIT = {"mixtral"}


@pytest.mark.parametrize("case", [case for case in CASES if case not in SPLIT and "bare" not in case])
def test_stored_names_become_live_names(case: str, tmp_path: Path) -> None:
    tiny(case).save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        stored = set(file.keys())
    layout = layout_of(case)
    live = live_names(layout.model_type, stored)
    assert set(live) == stored
    assert set(live.values()) <= set(tiny(case).state_dict())
    assert len(set(live.values())) == len(stored)
    folder = open_checkpoint(tmp_path).layout()
    for name in ("heads", "neurons", "layers", "matrix_rows", "weights"):
        assert granularity(name).groups(folder) == granularity(name).groups(layout)
    assert live_names(layout.model_type, layout.shapes) == {name: name for name in layout.shapes}


def test_older_and_bare_files() -> None:
    old = ["bert.embeddings.LayerNorm.gamma", "bert.embeddings.LayerNorm.beta", "cls.predictions.bias"]
    new = ["bert.embeddings.LayerNorm.weight", "bert.embeddings.LayerNorm.bias", "cls.predictions.bias"]
    assert list(live_names("bert", old).values()) == new
    bare = ["embeddings.cls_token", "encoder.layer.0.attention.attention.query.weight", "layernorm.bias"]
    full = ["vit.embeddings.cls_token", "vit.layers.0.attention.q_proj.weight", "vit.layernorm.bias"]
    assert list(live_names("vit", bare).values()) == full
    assert live_names("gpt2", ["wte.weight", "h.0.ln_1.bias"])["wte.weight"] == "transformer.wte.weight"
    assert live_names("unheard-of", ["a.b"]) == {"a.b": "a.b"}
    register_architecture("mute martian", Architecture("", ""))
    assert live_names("mute martian", ["a.b"]) == {"a.b": "a.b"}
