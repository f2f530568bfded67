"""The messages on the page are messages of this library: an error whose words change changes the page."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT

PAGE = DOCS / "troubleshooting.md"
OF_OTHERS = ("KeyError: 'KS_TICKET'",)


def quoted() -> list[str]:
    """The first cell of every row, where it is a message."""
    cells = re.findall(r"^\| `([^`]+)`", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [cell for cell in cells if cell not in OF_OTHERS]


@cache
def messages() -> tuple[str, ...]:
    """Every text in the library's code, with … where a value is put in."""
    found = []
    for file in sorted((ROOT / "ks_lottery").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return tuple(found)


def pieces(message: str) -> list[str]:
    return [piece for piece in message.split("…") if piece.strip(" .:")]


def test_the_page_quotes_enough() -> None:
    assert len(quoted()) >= 20


@pytest.mark.parametrize("message", quoted())
def test_a_quoted_message_is_one_of_ours(message: str) -> None:
    pattern = re.compile(".*".join(map(re.escape, pieces(message))), re.DOTALL)
    assert any(pattern.search(text) for text in messages()), f"no code says {message!r}: correct {Path(PAGE).name}"
