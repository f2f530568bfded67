"""`ks-lottery pull`: a ticket from the Hugging Face Hub, or the list of those of a base model."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ks_lottery.cli.method import usage_errors
from ks_lottery.cli.screen import AsJson, console, only_json, print_json
from ks_lottery.errors import OptionError
from ks_lottery.ticket.markdown import MISSING

if TYPE_CHECKING:
    from ks_lottery.ticket.collection import ListedTicket

RepoId = Annotated[
    str | None, typer.Argument(metavar="[REPO_ID]", help="What to fetch: user/name, or user/name@revision.")
]
OutFolder = Annotated[
    str | None, typer.Option("--out", metavar="DIR", help="Where to; an older ticket there is replaced.")
]
ListBase = Annotated[
    str | None, typer.Option("--list", metavar="BASE", help="List the tickets of this base model (Hub id) instead.")
]
Limit = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="With --list: at most so many.")]
TicketOnly = Annotated[
    bool, typer.Option("--ticket-only", help="Leave adapter, card and report there: positions and signature alone.")
]


def pull(
    repo_id: RepoId = None,
    out: OutFolder = None,
    list_base: ListBase = None,
    limit: Limit = None,
    ticket_only: TicketOnly = False,
    as_json: AsJson = False,
) -> None:
    """Fetch a ticket from the Hugging Face Hub into a folder, with the adapter, card and report beside it.

    All files are of one commit, are compared with the hashes that the Hub lists, and arrive together or not at all.
    Pickles and code are never fetched, and a signature is checked. For private and gated repositories log in with
    `hf auth login`, or set HF_TOKEN.

    --list BASE lists the tickets that name BASE as their base model, most downloaded first.

    Example: ks-lottery pull user/my-ticket --out ticket

    Example: ks-lottery pull --list user/base-model
    """
    with usage_errors():
        _require_one(repo_id, out, list_base, limit, ticket_only)
    if list_base is not None:
        from ks_lottery.ticket.collection import list_tickets

        with only_json(as_json):
            found = list_tickets(list_base, limit)
        if as_json:
            print_json([one.to_dict() for one in found])
        else:
            _show(list_base, found)
        return
    from ks_lottery.ticket.ownership.signature_check import check_signature
    from ks_lottery.ticket.pull import pull_folder

    name, _, revision = str(repo_id).partition("@")
    with usage_errors(), only_json(as_json):
        ticket = pull_folder(name, str(out), revision=revision or None, ticket_only=ticket_only)
    signature = check_signature(ticket, str(out))
    if as_json:
        print_json(
            {"folder": out, **ticket.to_dict(), "num_units": len(ticket), "signature": dataclasses.asdict(signature)}
        )
        return
    console().print(
        f"Pulled {repo_id} into {out}: {len(ticket):,} units ({ticket.granularity}) of {ticket.base.name}, fingerprint "
        f"{ticket.fingerprint[:12]}. Signature: {signature.in_words()}.",
        soft_wrap=True,
        markup=False,
    )


def _require_one(
    repo_id: str | None, out: str | None, list_base: str | None, limit: int | None, ticket_only: bool
) -> None:
    if list_base is not None:
        beside = {"REPO_ID": repo_id, "--out": out, "--ticket-only": ticket_only or None}
        given = [name for name, value in beside.items() if value is not None]
        if given:
            raise OptionError(f"--list {list_base} lists and fetches nothing: leave {' and '.join(given)} out.")
        return
    if repo_id is None or out is None:
        raise OptionError("Give REPO_ID and --out DIR to fetch a ticket, or --list BASE to see which there are.")
    if limit is not None:
        raise OptionError(f"--limit {limit} is for --list BASE. Leave it out.")


def _show(base: str, found: "Sequence[ListedTicket]") -> None:
    if not found:
        console().print(
            f"The Hub lists no ticket of {base} that you may see. Is that the id that cards name as base_model?",
            soft_wrap=True,
            markup=False,
        )
        return
    table = Table(box=None, header_style="bold")
    table.add_column("ticket", overflow="fold")
    table.add_column("holds")
    for name in ("downloads", "likes", "updated"):
        table.add_column(name, justify="right")
    for one in found:
        holds = "adapter" if one.library == "peft" else "positions"
        counts = (MISSING if count is None else f"{count:,}" for count in (one.downloads, one.likes))
        table.add_row(
            escape(one.repo_id), holds + (", private" if one.private else ""), *counts, one.updated or MISSING
        )
    console().print(table)
