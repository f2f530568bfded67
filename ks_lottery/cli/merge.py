"""`ks-lottery merge`: a plain model with the weights of an adapter, or with a ticket's weights from a tuned model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ks_lottery.cli.screen import AsJson, announced_bar, console, only_json, print_json, written
from ks_lottery.errors import AdapterError, TicketError

if TYPE_CHECKING:
    from ks_lottery.ticket.ticket import Ticket

Merged = Annotated[
    str, typer.Argument(metavar="SOURCE", help="Folder or Hub id of a saved ticket adapter; with --after, of a ticket.")
]
OutFolder = Annotated[str, typer.Option("--out", metavar="DIR", help="Where to; an older folder there is replaced.")]
AfterModel = Annotated[
    str | None,
    typer.Option(
        "--after",
        metavar="MODEL",
        help="Folder or Hub id of the tuned model: take the weights of the ticket from it, and train nothing.",
    ),
]
BaseModel = Annotated[
    str | None,
    typer.Option(
        "--base-model", help="Folder or Hub id of the base model. Default: the one that the adapter or ticket names."
    ),
]


def merge(
    source: Merged, out: OutFolder, after: AfterModel = None, base_model: BaseModel = None, as_json: AsJson = False
) -> None:
    """Write a model that needs neither this library nor PEFT: the base model with a ticket's weights in place.

    The weights come from a trained adapter, or with --after from a tuned model (partial transfer: the ticket's weights
    are copied, and nothing is trained). The files of the base model are copied and what the ticket changes is rewritten
    in the copies, so that no model is built and every other byte stays. DIR is whole or absent.

    Example: ks-lottery merge adapter --out merged-model

    Example: ks-lottery merge ticket --after tuned-model --out merged-model
    """
    with only_json(as_json), announced_bar("Merging") as progress:
        if after is None:
            _require_adapter(source)
            from ks_lottery.adapter.export.exporter import export_ticket

            folder = export_ticket(source, out, to="merged", base_model=base_model, progress=progress)
        else:
            from ks_lottery.adapter.transfer_files import transfer_checkpoint
            from ks_lottery.ticket.ticket import Ticket

            ticket = Ticket.from_pretrained(source)
            folder = transfer_checkpoint(base_model or _base_of(ticket, source), ticket, after, out, progress)
    files, size = written(folder)
    if as_json:
        print_json({"folder": out, "files": files, "bytes": size, "transferred": after is not None})
        return
    how = "with the adapter's weights" if after is None else f"with the ticket's weights of {after}"
    console().print(
        f"Wrote the base model {how} in {out}: {len(files)} files, {size:,} bytes.", soft_wrap=True, markup=False
    )


def _require_adapter(source: str) -> None:
    """Check that a folder holds an adapter, before the libraries are loaded that read it."""
    from ks_lottery.ticket.store import ticket_file

    if ticket_file(source).is_file() and not (Path(source) / "adapter_config.json").is_file():
        raise AdapterError(
            f"{source!r} holds a ticket and no adapter: positions, and no weights. Give --after MODEL, the tuned model "
            "whose weights go there; or train the ticket first (attach_ticket) and merge the saved adapter."
        )


def _base_of(ticket: "Ticket", source: str) -> str:
    """The base model that a ticket names, as `open_checkpoint` takes it."""
    from ks_lottery.ticket.card import hub_base_model

    for name in (ticket.provenance.details.get("before"), ticket.base.name):
        if isinstance(name, str) and Path(name).is_dir():
            return name
    repo_id = hub_base_model(ticket.base.name)
    if repo_id is None:
        raise TicketError(
            f"The ticket in {source!r} was found on {ticket.base.name!r}, which is not on this machine. Give "
            "--base-model."
        )
    return f"{repo_id}@{ticket.base.revision}" if ticket.base.revision else repo_id
