"""Numbers, tables and code in Markdown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ks_lottery.ticket.markdown import MISSING, code, data_size, number, percent, table


@given(st.text(min_size=1))
def test_code_keeps_its_text(text: str) -> None:
    written = code(text).replace("\\|", "|")
    fence = written[: len(written) - len(written.lstrip("`"))]
    inner = written[len(fence) : -len(fence)]
    assert written.endswith(fence)
    assert fence not in inner
    assert inner == text or inner == f" {text} "


def test_code_in_a_table() -> None:
    assert code("a|b") == r"`a\|b`"
    assert code("`") == "`` ` ``"
    assert code("###") == "`###`"


def test_table() -> None:
    assert table(["run", "BLEU"], [["base", "2.5"], ["a", MISSING]]) == (
        "| run | BLEU |\n| :-- | --: |\n| base | 2.5 |\n| a | — |"
    )


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (number(46.04), "46.0"),
        (number(3456, 0), "3,456"),
        (number(None), "—"),
        (number(0.0), "0.0"),
        (percent(0.974), "97 %"),
        (percent(0.00117, 2), "0.12 %"),
        (percent(-0.0004), "0 %"),
        (percent(-0.02), "-2 %"),
        (percent(None), "—"),
        (data_size(999), "999 B"),
        (data_size(15_400), "15.4 kB"),
        (data_size(2_360_000), "2.4 MB"),
        (data_size(7e10), "70.0 GB"),
        (data_size(None), "—"),
    ],
)
def test_numbers(written: str, expected: str) -> None:
    assert written == expected
