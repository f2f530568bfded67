"""`ks-lottery units`: every registered granularity, and how many units of each a model has."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ks_lottery.cli.options_table import options_cell, options_of, summary_of
from ks_lottery.cli.screen import AsJson, console, only_json, print_json
from ks_lottery.errors import LotteryError
from ks_lottery.ticket.markdown import MISSING

if TYPE_CHECKING:
    from ks_lottery.units.layout import ModelLayout

Model = Annotated[
    str | None,
    typer.Argument(metavar="[MODEL]", help="Folder or Hub id of a model whose units are counted; none is built."),
]


def units(model: Model = None, as_json: AsJson = False) -> None:
    """List every granularity with its options, and with MODEL how many units of each there are in it.

    Names and shapes are read off the headers of the files: no model is built, and of a repository on the Hub no weight
    is downloaded. Counts are those of the default options. A granularity that the model lacks stands there with the
    reason.

    Example: ks-lottery units base-model
    """
    from ks_lottery.units.granularity import GRANULARITIES

    layout = None
    if model is not None:
        from ks_lottery.checkpoints.hub_headers import open_headers

        with only_json(as_json):
            layout = open_headers(model).layout()
    described = [_described(name, entry, layout) for name, entry in GRANULARITIES.items()]
    if as_json:
        print_json(described if model is None else {"model": model, "units": described})
        return
    table = Table(box=None, header_style="bold", padding=(0, 2, 1, 0))
    table.add_column("units", no_wrap=True)
    for name in () if model is None else ("number", "groups", "weights of a unit"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("options", no_wrap=True)
    table.add_column("what a unit is, or why there is none" if model else "what a unit is", overflow="fold")
    for one in described:
        counts = () if model is None else (_number(one["number"]), _number(one["groups"]), _sizes(one["weights"]))
        says = one.get("reason") or one["summary"]
        table.add_row(Text(one["name"]), *map(Text, counts), options_cell(one["options"]), Text(says))
    console().print(table)


def _described(name: str, entry: Any, layout: "ModelLayout | None") -> dict[str, Any]:
    """A granularity as JSON values, with its units in a model."""
    described = {"name": name, "summary": summary_of(entry), "options": options_of(entry)}
    if layout is None:
        return described
    try:
        groups = entry().groups(layout)
        sizes = [group.weights_per_unit(layout.shapes) for group in groups]
    except LotteryError as error:
        return {**described, "number": None, "groups": None, "weights": None, "reason": " ".join(str(error).split())}
    return {
        **described,
        "number": sum(group.num_units for group in groups),
        "groups": len(groups),
        "weights": [min(sizes), max(sizes)],
        "reason": None,
    }


def _number(count: int | None) -> str:
    return MISSING if count is None else f"{count:,}"


def _sizes(bounds: list[int] | None) -> str:
    """Weights of the smallest and of the largest unit."""
    if bounds is None:
        return MISSING
    low, high = bounds
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
