"""Slabs, groups, layouts and the granularities over them."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ks_lottery.checkpoints.reader import ModelCheckpoint
from ks_lottery.errors import OptionError, UnitError, UnknownNameError
from ks_lottery.units.architecture import Architecture, architecture, register_architecture
from ks_lottery.units.granularity import GRANULARITIES, granularity
from ks_lottery.units.layout import ModelLayout
from ks_lottery.units.slab import Slab, UnitGroup, parameters_of
from ks_lottery.units.token_rows import TokenRows
from tests.tiny_models import VOCABULARY, WIDTH, tiny_llama


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def layout(request: pytest.FixtureRequest) -> ModelLayout:
    return ModelCheckpoint(tiny_llama(tied=request.param)).layout()


@pytest.mark.parametrize("name", GRANULARITIES.names())
def test_units_of_a_granularity_never_overlap(name: str, layout: ModelLayout) -> None:
    """Conformance, over every registered granularity: no weight belongs to two units of one group."""
    owners = {parameter: torch.zeros(shape, dtype=torch.int64) for parameter, shape in layout.shapes.items()}
    groups = granularity(name).groups(layout)
    assert len({group.name for group in groups}) == len(groups)
    for group in groups:
        for slab in group.slabs:
            every = torch.from_numpy(slab.indices(np.arange(group.num_units)))
            owner = owners[slab.parameter]
            if slab.dim is None:
                owner.view(-1)[every] += 1
            else:
                owner.index_add_(slab.dim, every, torch.ones_like(owner.index_select(slab.dim, every)))
        assert group.weights_per_unit(layout.shapes) > 0
        assert UnitGroup.from_dict(group.to_dict()) == group
    assert all(int(owner.max()) <= 1 for owner in owners.values())


@pytest.mark.parametrize("name", GRANULARITIES.names())
def test_a_granularity_names_itself(name: str) -> None:
    assert granularity(name).name == name
    assert granularity(granularity(name)) == granularity(name)


def test_token_rows_of_an_untied_model() -> None:
    layout = ModelCheckpoint(tiny_llama()).layout()
    (group,) = TokenRows().groups(layout)
    assert group == UnitGroup("input", (Slab("model.embed_tokens.weight", 0),), VOCABULARY)
    assert group.weights_per_unit(layout.shapes) == WIDTH
    both = TokenRows(ends="both").groups(layout)
    assert [group.name for group in both] == ["input", "output"]
    assert list(parameters_of(both)) == ["model.embed_tokens.weight", "lm_head.weight"]


def test_tied_rows_cannot_move_at_one_end() -> None:
    layout = ModelCheckpoint(tiny_llama(tied=True)).layout()
    assert [group.name for group in TokenRows().groups(layout)] == ["tied"]
    assert TokenRows(ends="both").groups(layout) == TokenRows().groups(layout)
    for end in ("input", "output"):
        with pytest.raises(UnitError, match=f"TokenRows\\(ends='{end}'\\): this 'llama' model ties its embeddings"):
            TokenRows(ends=end).groups(layout)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(OptionError, match="must be one of input, output, both"):
        TokenRows(ends="middle")  # type: ignore[arg-type]
    with pytest.raises(
        OptionError, match="units=3 is neither the name nor an instance of a granularity. Names: token_rows"
    ):
        granularity(3)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="Did you mean 'token_rows'"):
        granularity("token_row")


def test_unknown_architectures_say_how_to_register() -> None:
    with pytest.raises(UnknownNameError, match=r"register_architecture\('martian'"):
        architecture("martian")
    register_architecture("martian", Architecture("words.weight", "head.weight"))
    layout = ModelLayout("martian", {"words.weight": (5, 3), "head.weight": (5,)}, tied=False)
    assert TokenRows().groups(layout)[0].num_units == 5
    with pytest.raises(
        UnitError, match=r"'head.weight' should be a \[vocabulary, width\] matrix, but has shape \(5,\)"
    ):
        TokenRows(ends="output").groups(layout)
    wrong = ModelLayout("martian", {"word.weight": (5, 3)}, tied=False)
    with pytest.raises(UnitError, match="has no parameter 'words.weight'"):
        TokenRows().groups(wrong)


_TINY = {
    "gpt2": {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 20, "n_positions": 16},
    "gpt_neox": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
                 "vocab_size": 20},
    "opt": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 16, "vocab_size": 20,
            "word_embed_proj_dim": 16, "max_position_embeddings": 16},
    "bloom": {"hidden_size": 16, "n_layer": 1, "n_head": 2, "vocab_size": 20},
    **dict.fromkeys(
        ("mistral", "mixtral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "olmo2", "smollm3"),
        {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
         "intermediate_size": 16, "vocab_size": 20, "head_dim": 8, "pad_token_id": 0, "bos_token_id": 1,
         "eos_token_id": 2},
    ),
}  # fmt: skip


@pytest.mark.parametrize("model_type", sorted(_TINY))
def test_the_table_names_the_embeddings_that_transformers_uses(model_type: str) -> None:
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **_TINY[model_type]))
    names = architecture(model_type)
    assert model.get_parameter(names.input_embedding) is model.get_input_embeddings().weight
    assert model.get_parameter(names.output_head) is model.get_output_embeddings().weight
    layout = ModelCheckpoint(model).layout()
    assert layout.tied == (model.get_input_embeddings().weight is model.get_output_embeddings().weight)
    assert TokenRows().groups(layout)[0].num_units == 20


def test_slabs_refuse_dimensions_that_are_not_there() -> None:
    with pytest.raises(UnitError, match="lies along dimension 2, but the parameter has shape"):
        Slab("w", dim=2).weights_per_unit((3, 4))
    with pytest.raises(UnitError, match="has 0 units in 1 slabs"):
        UnitGroup("empty", (Slab("w", 0),), 0)


def test_slab_indices() -> None:
    assert Slab("w", 0, width=2, start=3).indices(np.array([2, 0])).tolist() == [7, 8, 3, 4]
    assert Slab("w", None).weights_per_unit((3, 4)) == 1
    assert Slab("w", 1, width=2).weights_per_unit((3, 4)) == 6
