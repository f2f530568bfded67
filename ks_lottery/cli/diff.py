"""`ks-lottery diff`: how two checkpoints differ, parameter by parameter."""

from dataclasses import asdict
from time import perf_counter
from typing import Annotated

import typer

from ks_lottery.cli.completion import unit_names
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
from ks_lottery.cli.screen import PAIRED, AsJson, console, print_json, progress_bar
from ks_lottery.cli.show import Order, show_differences, show_ticket
from ks_lottery.errors import OptionError

Scope = Annotated[
    list[str] | None,
    typer.Option(
        "--scope", metavar="PATTERN", help="Only parameters whose name matches, such as '*.mlp.*'; repeatable."
    ),
]
UnitsName = Annotated[
    str | None,
    typer.Option(
        "--units", help="Compare every unit of this kind too: token_rows, matrix_rows.", autocompletion=unit_names
    ),
]
TableFile = Annotated[
    str | None,
    typer.Option(
        "--table",
        metavar="FILE",
        help="Write all units, or all parameters without --units, as .csv, .json or .parquet.",
    ),
]
Sorting = Annotated[Order, typer.Option("--sort", help="Order of the table: largest first, or by name or place.")]


def diff(
    before: Before,
    after: After,
    scope: Scope = None,
    units: UnitsName = None,
    finder: FinderName = None,
    option: MethodOptions = None,
    alpha: AlphaLevel = None,
    correction: Correction = None,
    top_k: TopCount = None,
    density: Share = None,
    out: OutFolder = None,
    table: TableFile = None,
    as_json: AsJson = False,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Threads. Default: one per processor, at most 8.")
    ] = None,
    sort: Sorting = Order.statistic,
) -> None:
    """Compare two checkpoints, parameter by parameter, in one pass over both.

    Both are read in pieces: memory does not grow with the models. Prints for each parameter that changed the share of
    changed values and rows, D (the two-sample Kolmogorov-Smirnov statistic of all its values), and the norm of the
    shift over the norm before; and lists every tensor that is not compared, with the reason. With a finder or a rule
    to select (--finder, --alpha, --top-k, --density, --out) it finds a ticket as well, as `ks-lottery find` does.

    Example: ks-lottery diff base-model tuned-model --units token_rows --table rows.csv
    """
    from ks_lottery.checkpoints.diff import compare_checkpoints
    from ks_lottery.checkpoints.inventory import pair_tensors
    from ks_lottery.checkpoints.reader import open_checkpoint
    from ks_lottery.cli.columns import parameter_columns, records, unit_columns, unit_summaries
    from ks_lottery.cli.found import found_ticket
    from ks_lottery.cli.table_file import table_suffix, write_table

    with usage_errors():
        selecting = any(given is not None for given in (finder, alpha, correction, top_k, density, out))
        if units is None and (selecting or option):
            raise OptionError("A finder, options, a rule to select and --out need --units, such as --units token_rows.")
        if table is not None:
            table_suffix(table)
        method = None if units is None else resolve_method(units, finder, option)
        selector = resolve_selector(alpha, correction, top_k, density)
    started = perf_counter()
    sides = open_checkpoint(before), open_checkpoint(after)
    inventory = pair_tensors(*sides).within(scope)
    with progress_bar(2 * sum(pair.num_bytes for pair in inventory.pairs), "Comparing") as advance:
        differences = list(
            compare_checkpoints(*sides, scope=scope, units=method and method[0], jobs=jobs, progress=advance)
        )
    seconds = perf_counter() - started
    if table is not None:
        write_table(table, [parameter_columns(differences)] if method is None else unit_columns(differences))
    summary = found_ticket(sides, *method, selector, out) if method and selecting else None
    if as_json:
        print_json(
            {
                "before": sides[0].name,
                "after": sides[1].name,
                "seconds": seconds,
                "parameters": records(parameter_columns(differences)),
                "units": unit_summaries(differences),
                "remarks": [asdict(remark) for remark in inventory.remarks],
                "ticket": summary,
                "note": PAIRED,
            }
        )
        return
    show_differences(differences, inventory, sort, seconds)
    if summary is not None:
        show_ticket(summary, out)
    console().print(PAIRED)
