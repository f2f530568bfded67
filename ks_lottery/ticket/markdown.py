"""Markdown for model cards and reports: tables, code, and numbers; what is missing is a dash, never a guess."""

import math
from collections.abc import Iterable, Sequence

MISSING = "—"


def code(text: str) -> str:
    """A text as inline code that survives in a table: pipes escaped, backticks fenced."""
    fence = "`"
    while fence in text:
        fence += "`"
    padding = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{padding}{text}{padding}{fence}".replace("|", "\\|")


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table whose first `left` columns are aligned left and the others right; cells are Markdown already."""
    rule = [":--"] * left + ["--:"] * (len(header) - left)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def number(value: float | None, digits: int = 1) -> str:
    """A number with separated thousands and a fixed number of decimals."""
    return MISSING if value is None else f"{value:,.{digits}f}"


def percent(share: float | None, digits: int = 0) -> str:
    """A share as percent."""
    if share is None:
        return MISSING
    shown = f"{100 * share:.{digits}f}"
    return f"{shown.removeprefix('-') if float(shown) == 0 else shown} %"


def data_size(count: float | None) -> str:
    """A number of bytes in the largest decimal unit that leaves at least 1."""
    if count is None:
        return MISSING
    if count < 1000:
        return f"{count:.0f} B"
    power = min(3, int(math.log10(count)) // 3)
    return f"{count / 1000**power:.1f} {('kB', 'MB', 'GB')[power - 1]}"
