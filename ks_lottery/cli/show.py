"""Comparisons and tickets as tables on the screen."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from ks_lottery.cli.screen import console, number, percent
from ks_lottery.ticket.markdown import MISSING, data_size

if TYPE_CHECKING:
    from ks_lottery.checkpoints.diff import TensorDifference
    from ks_lottery.checkpoints.inventory import Inventory, Remark

_REMARKS_SHOWN = 5
_ROWS_SHOWN = 20

_REMARKS = {
    "only_before": "not compared, only before",
    "only_after": "not compared, only after",
    "tied": "not compared, tied on the other side",
    "reshaped": "not compared, another shape",
    "other_dtype": "not compared, another dtype",
    "not_float": "compared byte for byte, no floats",
    "renamed": "compared, spelt differently in the files",
}


class Order(StrEnum):
    """What the table of parameters is sorted by."""

    statistic = "statistic"
    relative_shift = "relative-shift"
    changed_share = "changed-share"
    name = "name"
    file = "file"


def show_differences(
    differences: "Sequence[TensorDifference]", inventory: "Inventory", order: Order, seconds: float
) -> None:
    """Print what changed, what did not in one line, and every remark.

    Args:
        differences: in the order of the files.
        inventory: what was compared, and the remarks.
        order: of the table.
        seconds: how long the comparison took.
    """
    from ks_lottery.cli.columns import unit_summaries

    screen = console()
    changed = [one for one in differences if one.changed_values]
    same = [one for one in differences if not one.changed_values]
    if changed:
        screen.print(_parameter_table(_sorted(changed, order)))
    if same:
        size = data_size(sum(one.pair.num_bytes for one in same))
        screen.print(f"{len(same):,} of {len(differences):,} parameters are bit-identical ({size}).")
    for units in unit_summaries(differences):
        screen.print(
            f"{units['granularity']}, group {escape(units['group'])}: {units['changed']:,} of {units['units']:,} units "
            f"changed, largest D {number(units['largest_statistic'])}."
        )
    for kind, remarks in groupby(inventory.remarks, key=lambda remark: remark.kind):
        _show_remarks(_REMARKS[kind], list(remarks))
    total = 2 * sum(pair.num_bytes for pair in inventory.pairs)
    screen.print(f"Compared {data_size(total)} in {seconds:.2f} s ({total / max(seconds, 1e-9) / 1e9:.2f} GB/s).")


def show_ticket(summary: dict[str, Any], out: str | None) -> None:
    """Print a ticket's size and its first rows.

    Args:
        summary: what `ticket_summary` gives.
        out: folder that it is saved in, or None.
    """
    screen = console()
    screen.print(
        f"Ticket: {summary['num_units']:,} units ({summary['granularity']}), {summary['num_trainable']:,} weights, "
        f"{percent(summary['density']['units'])} of their matrices and {percent(summary['density']['model'])} of the "
        f"model; fingerprint {summary['fingerprint'][:12]}."
    )
    show_rows(summary["rows"][:_ROWS_SHOWN], len(summary["rows"]))
    if out is not None:
        screen.print(f"Saved in {escape(out)}.", soft_wrap=True)


def show_rows(rows: Sequence[Mapping[str, Any]], total: int) -> None:
    """Print the first units of a ticket with all that is known of them.

    Args:
        rows: of `ticket_summary`, as many as are to be shown.
        total: how many there are.
    """
    screen = console()
    titles = {"statistic": "D", "log10_p": "log10 p", "relative_shift": "relative shift", "score": "score"}
    named, known = (
        [name for name in names if any(row[name] is not None for row in rows)] for names in (["token"], titles)
    )
    table = Table(*named, "group", "unit", *(titles[name] for name in known), box=None, header_style="bold")
    for column in table.columns[len(named) + 1 :]:
        column.justify = "right"
    for row in rows:
        tokens = [MISSING if row[name] is None else escape(row[name]) for name in named]
        table.add_row(*tokens, escape(row["group"]), str(row["id"]), *(number(row[name]) for name in known))
    screen.print(table)
    if total > len(rows):
        screen.print(f"... and {total - len(rows):,} more.")


def _parameter_table(differences: "Sequence[TensorDifference]") -> Table:
    table = Table(box=None, header_style="bold")
    table.add_column("parameter", overflow="fold")
    for name in ("shape", "dtype", "changed", "changed rows", "D", "relative shift"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in differences:
        rows = one.pair.rows
        table.add_row(
            escape(one.pair.name),
            "x".join(map(str, one.pair.shape)) or "scalar",
            one.pair.dtype,
            percent(one.changed_share),
            f"{one.changed_rows:,} of {rows:,}" if rows > 1 else MISSING,
            number(one.statistic),
            number(one.relative_shift),
        )
    return table


def _sorted(differences: "list[TensorDifference]", order: Order) -> "list[TensorDifference]":
    """By name or file, or by a number, largest first; parameters without the number last, equal ones by name."""
    if order is Order.file:
        return differences
    by_name = sorted(differences, key=lambda one: one.pair.name)
    if order is Order.name:
        return by_name

    def key(one: "TensorDifference") -> float:
        value = getattr(one, order.name)
        return 1.0 if value is None else -value

    return sorted(by_name, key=key)


def _show_remarks(heading: str, remarks: "list[Remark]") -> None:
    screen = console()
    screen.print(f"{len(remarks):,} {heading}:")
    for remark in remarks[:_REMARKS_SHOWN]:
        screen.print(f"  {escape(remark.name)}: {escape(remark.text)}")
    if len(remarks) > _REMARKS_SHOWN:
        screen.print(f"  ... and {len(remarks) - _REMARKS_SHOWN:,} more; --json lists all.")
