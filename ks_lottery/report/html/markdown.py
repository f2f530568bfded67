"""The Markdown of a report as HTML: headings one can link to, tables for screen readers, figures for pictures."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape

from ks_lottery.errors import DataError
from ks_lottery.report.html.figure import Figure, Section
from ks_lottery.report.html.templating import template


@dataclass(frozen=True)
class Body:
    """The parts of a page.

    Attributes:
        title: text of the first headline.
        html: everything below it.
        contents: id and text of every headline of the second level.
    """

    title: str
    html: Markup
    contents: Sequence[tuple[str, str]]


def rendered(
    markdown: str, figures: Mapping[str, Figure], sections: Sequence[Section] = (), before: str | None = None
) -> Body:
    """Render Markdown with figures in place of its pictures; arguments and errors as `html_page`."""
    parser = _parser()
    tokens = _with_table_roles(_set_out(parser.parse(markdown)))
    place = len(tokens) if before is None else _heading(tokens, before)
    env: dict[str, Any] = {"figures": figures, "ids": set(), "contents": [], "heading": ""}
    title, start = _title(tokens)
    html = parser.renderer.render(tokens[start:place], parser.options, env)
    for section in sections:
        inside = parser.parse(f"## {section.title}\n\n{section.text}")
        html += parser.renderer.render(inside, parser.options, env)
        html += str(section.figure.html(_unique(section.title, env["ids"])))
    html += parser.renderer.render(tokens[place:], parser.options, env)
    return Body(title, Markup(html), env["contents"])


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    for name, rule in (
        ("heading_open", _heading_open), ("image", _image), ("table_open", _table_open),
        ("table_close", _table_close), ("fence", _fence),
    ):  # fmt: skip
        parser.add_render_rule(name, rule)
    return parser


def _title(tokens: Sequence[Token]) -> tuple[str, int]:
    """Text of the first headline, and the number of the token after it."""
    if tokens and tokens[0].type == "heading_open" and tokens[0].tag == "h1":
        return _text(tokens[1]), 3
    return "Report", 0


def _heading(tokens: Sequence[Token], text: str) -> int:
    """Number of the token that opens a headline."""
    for number, token in enumerate(tokens):
        if token.type == "heading_open" and _text(tokens[number + 1]) == text:
            return number
    raise DataError(f"The page has no headline {text!r} before which to put a section.")


def _set_out(tokens: list[Token]) -> list[Token]:
    """Take the paragraph from around a picture that stands alone: a figure is no part of one."""
    kept: list[Token] = []
    for number, token in enumerate(tokens):
        inline = tokens[number + (token.type == "paragraph_open") - (token.type == "paragraph_close")]
        if token.type.startswith("paragraph") and [child.type for child in inline.children or ()] == ["image"]:
            continue
        kept.append(token)
    return kept


def _with_table_roles(tokens: list[Token]) -> list[Token]:
    """Say which cells are heads of columns and rows, and drop heads of columns that say nothing."""
    kept: list[Token] = []
    head: list[Token] | None = None
    for token in tokens:
        _align(token)
        if token.type == "thead_open":
            head = []
        if token.type == "th_open":
            token.attrSet("scope", "col")
        (kept if head is None else head).append(token)
        if token.type == "thead_close" and head is not None:
            kept += head if any(one.type == "inline" and one.content for one in head) else []
            head = None
    return _with_row_heads(kept)


def _with_row_heads(tokens: list[Token]) -> list[Token]:
    """The first cell of each row in a table's body names the row."""
    opened = False
    for number, token in enumerate(tokens):
        if token.type == "td_open" and tokens[number - 1].type == "tr_open":
            token.tag, opened = "th", True
            token.attrSet("scope", "row")
        elif token.type == "td_close" and opened:
            token.tag, opened = "th", False
    return tokens


def _align(token: Token) -> None:
    style = token.attrs.pop("style", None)
    if style == "text-align:right":
        token.attrSet("class", "number")


def _text(token: Token) -> str:
    return "".join(child.content for child in token.children or () if child.type in ("text", "code_inline"))


def _unique(text: str, ids: set[str]) -> str:
    """An id out of a text that no other part of the page has."""
    stem = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "part"
    name, number = stem, 1
    while name in ids:
        number += 1
        name = f"{stem}-{number}"
    ids.add(name)
    return name


def _heading_open(renderer: Any, tokens: Sequence[Token], number: int, options: Any, env: Any) -> str:
    text = _text(tokens[number + 1])
    name = _unique(text, env["ids"])
    env["heading"] = text
    if tokens[number].tag == "h2":
        env["contents"].append((name, text))
    return str(Markup('<{tag} id="{name}">').format(tag=tokens[number].tag, name=name))


def _image(renderer: Any, tokens: Sequence[Token], number: int, options: Any, env: Any) -> str:
    source = str(tokens[number].attrs["src"])
    if source not in env["figures"]:
        raise DataError(f"The page shows {source!r}, but has no figure of that name.")
    return str(env["figures"][source].html(_unique(source, env["ids"])))


def _table_open(renderer: Any, tokens: Sequence[Token], number: int, options: Any, env: Any) -> str:
    env["tables"] = env.get("tables", 0) + 1
    label = escape(f"Table {env['tables']}: {env['heading'] or 'facts'}")
    return f'<div class="table" role="region" tabindex="0" aria-label="{label}"><table>'


def _table_close(renderer: Any, tokens: Sequence[Token], number: int, options: Any, env: Any) -> str:
    return "</table></div>"


def _fence(renderer: Any, tokens: Sequence[Token], number: int, options: Any, env: Any) -> str:
    return str(template("command.html", text=tokens[number].content.rstrip("\n")))
