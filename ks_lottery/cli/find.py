"""`ks-lottery find`: from two checkpoints to a ticket."""

from typing import Annotated

import typer

from ks_lottery.cli.method import (
    After,
    AlphaLevel,
    Before,
    Correction,
    FinderName,
    MethodOptions,
    OutFolder,
    Share,
    TopCount,
    resolve_method,
    resolve_selector,
    usage_errors,
)
from ks_lottery.cli.screen import PAIRED, console, print_json
from ks_lottery.cli.show import show_ticket


def find(
    before: Before,
    after: After,
    units: Annotated[str, typer.Option("--units", help="What is selected whole.")] = "token_rows",
    finder: FinderName = None,
    option: MethodOptions = None,
    alpha: AlphaLevel = None,
    correction: Correction = None,
    top_k: TopCount = None,
    density: Share = None,
    out: OutFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the ticket as JSON instead.")] = False,
) -> None:
    """Find the units that shifted between two checkpoints, and save them as a ticket.

    Without --alpha, --top-k or --density the rule of KS-Lottery holds: units with p below 0.05. Before and after are
    paired, so that p codes the size of a shift and is no error rate. `Ticket.load(DIR)` reads the ticket again.

    Example: ks-lottery find base-model tuned-model --units token_rows --finder ks --alpha 0.05 --out ticket
    """
    from ks_lottery.checkpoints.reader import open_checkpoint
    from ks_lottery.cli.found import found_ticket

    with usage_errors():
        method = resolve_method(units, finder, option)
        selector = resolve_selector(alpha, correction, top_k, density)
    summary = found_ticket((open_checkpoint(before), open_checkpoint(after)), *method, selector, out)
    if as_json:
        print_json(summary)
        return
    show_ticket(summary, out)
    console().print(PAIRED)
