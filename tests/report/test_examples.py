"""Examples are chosen by place alone, survive their file, and know what the first line is."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ks_lottery.errors import DataError
from ks_lottery.evaluation.generation import Continuation
from ks_lottery.evaluation.translation import TranslationOutput, TranslationScores
from ks_lottery.report.examples import (
    TranslationExample,
    Written,
    evenly_chosen,
    examples_from_bytes,
    examples_to_bytes,
)


def scores_of(texts: list[str]) -> TranslationScores:
    outputs = tuple(
        TranslationOutput(Continuation(text, stopped=number % 2 == 0, num_tokens=3), (f"reference {number}",))
        for number, text in enumerate(texts)
    )
    return TranslationScores(1.0, 1.0, 1.0, 1.0, None, None, "none", 0.5, 3.0, 1.0, outputs)


@given(st.text(alphabet=st.sampled_from("ab \t\n\r\x0b\u2028é"), max_size=30))
def test_the_marked_line_is_the_scored_one(text: str) -> None:
    before, line, after = Written(text, True).parts
    assert before + line + after == text
    assert line == Continuation(text, True, 1).first_line
    assert before.strip() == ""


def test_examples_lie_at_equal_distances() -> None:
    sources = [f"source {number}" for number in range(100)]
    runs = {"base": scores_of([f"text {number}" for number in range(100)])}
    chosen = evenly_chosen(sources, runs, 24)
    assert [one.source for one in chosen] == [f"source {number}" for number in range(0, 100, 5)]
    assert chosen[1] == TranslationExample("source 5", ("reference 5",), {"base": Written("text 5", False)})
    assert len(evenly_chosen(sources[:3], {"base": scores_of(["a", "b", "c"])}, 24)) == 3
    assert evenly_chosen([], {}) == []


def test_runs_of_another_test_set() -> None:
    with pytest.raises(DataError, match="'base' has 2 outputs for 3 sources"):
        evenly_chosen(["a", "b", "c"], {"base": scores_of(["x", "y"])})


def test_there_and_back() -> None:
    examples = [TranslationExample("s\n", ("r", "é"), {"base": Written("的", False)})]
    assert examples_from_bytes(examples_to_bytes(examples)) == examples


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"\xff", json.dumps({"format": 2, "examples": []}).encode(),
                json.dumps({"format": 1, "examples": [{"source": "s"}]}).encode()],
)  # fmt: skip
def test_damaged(content: bytes) -> None:
    with pytest.raises(DataError, match=r"The examples cannot be read .* Run what made the report again"):
        examples_from_bytes(content)
