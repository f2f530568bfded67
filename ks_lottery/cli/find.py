"""`ks-lottery find`: from two checkpoints, or from a model and a task, to a ticket."""

from typing import Annotated

import typer

from ks_lottery.cli.completion import unit_names
from ks_lottery.cli.method import (
    AlphaLevel,
    Before,
    Correction,
    FinderName,
    MethodOptions,
    OutFolder,
    Share,
    TopCount,
    resolve_density,
    resolve_method,
    resolve_selector,
    usage_errors,
)
from ks_lottery.cli.screen import PAIRED, AsJson, console, only_json, print_json
from ks_lottery.cli.show import show_ticket

After = Annotated[
    str | None,
    typer.Argument(help="The same model after training; for finders of two checkpoints, and for masks over an update."),
]
TaskOption = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="FILE",
        help="YAML file with `task` (kind, data) and if wanted `budget` and `seed`, as in a comparison: for finders "
        "that look at batches, masks or repeated training.",
    ),
]
RunsFolder = Annotated[
    str, typer.Option("--runs", metavar="DIR", help="Where trainings that a finder asks for are kept, to be reused.")
]


def find(
    before: Before,
    after: After = None,
    units: Annotated[
        str, typer.Option("--units", help="What is selected whole.", autocompletion=unit_names)
    ] = "token_rows",
    finder: FinderName = None,
    option: MethodOptions = None,
    alpha: AlphaLevel = None,
    correction: Correction = None,
    top_k: TopCount = None,
    density: Share = None,
    task: TaskOption = None,
    runs: RunsFolder = "runs/find",
    out: OutFolder = None,
    as_json: AsJson = False,
) -> None:
    """Find the units that matter, and save them as a ticket.

    Finders of two checkpoints (ks, magnitude, criterion) take BEFORE and AFTER. All others take the base model and
    --task FILE: batches of it, trainings on it, or a mask learnt over frozen weights. A mask over an update
    (--option kind=update) takes AFTER as well, or trains it.

    Without --alpha, --top-k or --density the rule of KS-Lottery holds: units with p below 0.05; a finder that learns a
    mask is cut at the density that it was learnt at. Before and after are paired, so that p codes the size of a shift
    and is no error rate. `Ticket.load(DIR)` reads the ticket again.

    Example: ks-lottery find base-model tuned-model --units token_rows --finder ks --alpha 0.05 --out ticket

    Example: ks-lottery find base-model --units heads --finder edge_popup --density 0.5 --task task.yaml --out ticket
    """
    from ks_lottery.checkpoints.reader import open_checkpoint
    from ks_lottery.cli.evidence import require_sides, task_evidence
    from ks_lottery.cli.found import found_ticket
    from ks_lottery.finders.base import Shift

    with usage_errors():
        kind, method = resolve_method(units, finder, option, any_evidence=True)
        method, share = resolve_density(method, density, option)
        selector = resolve_selector(alpha, correction, top_k, share if alpha is None and top_k is None else density)
        require_sides(method, after, task)
    with only_json(as_json):
        tuned = None if after is None else open_checkpoint(after)
        if task is None:
            summary = found_ticket((open_checkpoint(before), tuned), kind, method, selector, out)
        else:
            with usage_errors():
                base, evidence = task_evidence(before, tuned, method, kind, task, runs)
            summary = found_ticket((base, None), kind, method, selector, out, evidence)
    if as_json:
        print_json(summary)
        return
    show_ticket(summary, out)
    if method.needs is Shift:
        console().print(PAIRED)
