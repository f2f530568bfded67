"""`ks-lottery finders`: every registered finder."""

from typing import Any

from rich.table import Table
from rich.text import Text

from ks_lottery.cli.options_table import options_cell, options_of, summary_of
from ks_lottery.cli.screen import AsJson, console, print_json


def finders(as_json: AsJson = False) -> None:
    """List every finder: what it looks at, the kinds of ticket it finds, its options with their defaults, its source.

    `ks-lottery find --help` explains the options; --json has the explanations too.

    Example: ks-lottery finders --json
    """
    from ks_lottery.finders.base import FINDERS

    described = [_described(name, entry) for name, entry in FINDERS.items()]
    if as_json:
        print_json(described)
        return
    table = Table(box=None, header_style="bold", padding=(0, 2, 1, 0))
    table.add_column("finder", no_wrap=True)
    table.add_column("looks at")
    table.add_column("kinds", no_wrap=True)
    table.add_column("options", no_wrap=True)
    table.add_column("source", overflow="fold")
    for one in described:
        table.add_row(
            Text(one["name"]), Text(one["needs"]), Text("\n".join(one["kinds"])), options_cell(one["options"]),
            Text(one["citation"]),
        )  # fmt: skip
    console().print(table)


def _described(name: str, entry: Any) -> dict[str, Any]:
    """A finder as JSON values."""
    options = options_of(entry)
    kinds = next((one["choices"] for one in options if one["name"] == "kind"), None) or [entry.kind]
    return {
        "name": name,
        "summary": summary_of(entry),
        "evidence": entry.needs.__name__,
        "needs": entry.needs.described.partition(", ")[0],
        "kinds": kinds,
        "options": options,
        "citation": entry.citation,
    }
