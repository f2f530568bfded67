"""`ks-lottery doctor`: what works on this machine, and what does not."""

from typing import TYPE_CHECKING

import typer
from rich.table import Table
from rich.text import Text

from ks_lottery.cli.screen import AsJson, console, only_json, print_json

if TYPE_CHECKING:
    from ks_lottery.cli.checkup import Check

_STYLES = {"ok": "green", "limited": "yellow", "broken": "bold red"}


def doctor(as_json: AsJson = False) -> None:
    """Check versions, devices, write access, offline flags and the Hub's token, and say what works and what does not.

    Nothing is sent anywhere, and the token is never shown. The exit code is 1 if something is broken that is needed:
    a library outside the bounds of this package, an adapter type that PEFT does not take, no folder for temporary
    files. What is limited leaves it 0.

    Example: ks-lottery doctor --json
    """
    from ks_lottery.cli.checkup import checkup, worst

    with only_json(as_json):
        checks = list(checkup())
    verdict = worst(checks)
    if as_json:
        print_json({"verdict": verdict, "checks": [one.to_dict() for one in checks]})
    else:
        _show(checks)
    if verdict == "broken":
        raise typer.Exit(1)


def _show(checks: "list[Check]") -> None:
    table = Table(box=None, show_header=False)
    for column in ("status", "name"):
        table.add_column(column, no_wrap=True)
    table.add_column("says", overflow="fold")
    for one in checks:
        table.add_row(Text(one.status, style=_STYLES[one.status]), Text(one.name), Text(one.says))
    console().print(table)
    counts = {status: sum(one.status == status for one in checks) for status in _STYLES}
    if counts["broken"]:
        said = f"{counts['broken']} of {len(checks)} checks found something broken that is needed."
    elif counts["limited"]:
        said = f"Everything that is needed works; {counts['limited']} of {len(checks)} checks found something limited."
    else:
        said = f"All {len(checks)} checks are well."
    console().print(said, soft_wrap=True)
