"""Token rows: the embeddings that transformers itself says it uses, at one end or both."""

import pytest

from ks_lottery.errors import OptionError, UnitError, UnknownNameError
from ks_lottery.units.architecture import Architecture, architecture, register_architecture
from ks_lottery.units.granularity import granularity
from ks_lottery.units.layout import ModelLayout
from ks_lottery.units.slab import Slab, UnitGroup, parameters_of
from ks_lottery.units.token_rows import TokenRows, input_embedding
from tests.units.models import CASES, layout_of, tiny

READS_TOKENS = [case for case in CASES if case != "vit"]


@pytest.mark.parametrize("case", READS_TOKENS)
def test_the_table_names_the_embeddings_that_transformers_uses(case: str) -> None:
    model, layout = tiny(case), layout_of(case)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert model.get_parameter(input_embedding(layout)) is embedding.weight
    (group,) = TokenRows().groups(layout)
    assert group.num_units == 20
    if head is not None:
        assert model.get_parameter(architecture(layout.model_type).output_head) is head.weight
        assert group.name == ("tied" if head.weight is embedding.weight else "input")


def test_token_rows_of_an_untied_model() -> None:
    layout = layout_of("llama")
    (group,) = TokenRows().groups(layout)
    assert group == UnitGroup("input", (Slab("model.embed_tokens.weight", 0),), 20)
    assert group.weights_per_unit(layout.shapes) == 16
    both = TokenRows(ends="both").groups(layout)
    assert [group.name for group in both] == ["input", "output"]
    assert list(parameters_of(both)) == ["model.embed_tokens.weight", "lm_head.weight"]


def test_tied_rows_cannot_move_at_one_end() -> None:
    layout = layout_of("gpt2")
    assert [group.name for group in TokenRows().groups(layout)] == ["tied"]
    assert TokenRows(ends="both").groups(layout) == TokenRows().groups(layout)
    for end in ("input", "output"):
        with pytest.raises(UnitError, match=f"TokenRows\\(ends='{end}'\\): this 'gpt2' model ties its embeddings"):
            TokenRows(ends=end).groups(layout)


def test_a_model_with_a_task_head_has_only_input_rows() -> None:
    layout = layout_of("bert")
    assert layout.tied
    assert layout.task_head == "classifier"
    assert layout_of("bert for tokens").task_head is None
    assert [group.name for group in TokenRows(ends="input").groups(layout)] == ["input"]
    for end in ("output", "both"):
        with pytest.raises(UnitError, match="this 'bert' model ends in 'classifier' and has no output head for tokens"):
            TokenRows(ends=end).groups(layout)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(OptionError, match="must be one of input, output, both"):
        TokenRows(ends="middle")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="units=3 is neither the name nor an instance of a granularity. Names: heads"):
        granularity(3)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="Did you mean 'token_rows'"):
        granularity("token_row")


def test_matrices_that_are_none_or_missing() -> None:
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
