import pytest

from ks_lottery.errors import OptionError, UnknownNameError
from ks_lottery.training.prompts import PROMPTS, PromptTemplate


def test_the_short_wording_is_exact() -> None:
    prompt = PromptTemplate("instruction", "English", "German")
    assert prompt("Tom {is} here.") == (
        "### Instruction:\nTranslate from English to German.\n### Input:\nTom {is} here.\n### Response:\n"
    )


@pytest.mark.parametrize("name", PROMPTS)
def test_named_prompts_name_both_languages_and_end_with_a_line_break(name: str) -> None:
    text = PromptTemplate(name, "English", "German")("SENTENCE")
    assert text.count("SENTENCE") == text.count("English") == text.count("German") == 1
    assert text.endswith("### Response:\n")


def test_alpaca_is_the_default() -> None:
    assert PromptTemplate(source_language="A", target_language="B")("x").startswith("Below is an instruction")


def test_own_wording() -> None:
    assert PromptTemplate("{{{source}}} = ")("a b") == "{a b} = "
    assert PromptTemplate("to {target_language}: {source}", target_language="French")("x") == "to French: x"


def test_errors_say_the_way_out() -> None:
    with pytest.raises(
        UnknownNameError, match=r"Unknown prompt 'alpacca'. Did you mean 'alpaca'\? Available: alpaca, "
    ):
        PromptTemplate("alpacca")
    with pytest.raises(OptionError, match=r"has no \{source\}"):
        PromptTemplate("to {target_language}:", target_language="French")
    with pytest.raises(OptionError, match=r"unknown field \{sentence\}"):
        PromptTemplate("{source} {sentence}")
    with pytest.raises(OptionError, match=r"unknown field \{\}"):
        PromptTemplate("{source} {}")
    with pytest.raises(OptionError, match="needs source_language: pass"):
        PromptTemplate("alpaca", target_language="German")
    with pytest.raises(OptionError, match="cannot be read .* write a literal brace twice"):
        PromptTemplate("{source} {")
