"""`ks-lottery show`: what a ticket is, in the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from ks_lottery.cli.screen import PAIRED, AsJson, console, percent, print_json, share_bar
from ks_lottery.cli.show import show_rows
from ks_lottery.ticket.markdown import MISSING

if TYPE_CHECKING:
    from ks_lottery.ticket.ticket import Ticket
    from ks_lottery.ticket.tokens import TokenTable

Source = Annotated[
    str,
    typer.Argument(
        metavar="TICKET_OR_HUB_ID", help="Folder or file of a ticket, or its Hub id (user/name, user/name@revision)."
    ),
]
BaseModel = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="MODEL",
        help="Folder or Hub id whose tokenizer names the rows. Default: the base model where it is on this machine, "
        "and for tickets on the Hub also where it is there.",
    ),
]
RowCount = Annotated[int, typer.Option("--rows", metavar="N", min=0, help="Show so many units, strongest first.")]

_RESTS = {"update": "keeps its pretrained value", "weight": "is zero"}
_NO_CERTIFICATE = (
    "No certificate lies beside this ticket: nothing was shown of it on held-out data, or the report of that lies "
    "elsewhere."
)


@dataclass(frozen=True)
class _Found:
    """A ticket, and where what belongs to it lies on this machine."""

    ticket: "Ticket"
    folder: Path
    on_hub: bool


def show(ticket: Source, base: BaseModel = None, rows: RowCount = 20, as_json: AsJson = False) -> None:
    """Show a ticket: base model, finder and cut, units, where in the model they lie, fingerprint, certificate.

    Rows of tokens are named where a tokenizer is at hand. The bars tell which share of each layer's weights (of those
    that the units are made of) the ticket owns. A certificate is read from the report that lies in the ticket's folder.

    Example: ks-lottery show ticket --rows 10
    """
    from ks_lottery.ticket.certificate import certificates, results_beside
    from ks_lottery.ticket.layer_shares import layer_shares
    from ks_lottery.ticket.ownership.signature_check import check_signature
    from ks_lottery.ticket.summary import cut_by, ticket_summary

    found = _find(ticket)
    tokens = _tokens(found, base) if found.ticket.granularity == "token_rows" else None
    summary = ticket_summary(found.ticket, tokens, limit=rows)
    shares = layer_shares(found.ticket)
    results, _ = results_beside(found.folder)
    certified = certificates(results)
    signature = check_signature(found.ticket, ticket if Path(ticket).exists() else found.folder)
    if as_json:
        print_json(
            {
                **summary,
                "cut_by": cut_by(summary),
                "layers": [one.to_dict() for one in shares],
                "certificates": [{"run": run, **one} for run, one in certified],
                "signature": asdict(signature),
                "note": PAIRED,
            }
        )
        return
    _show_facts(summary, cut_by(summary), signature.in_words())
    if rows and summary["rows"]:
        console().print()
        show_rows(summary["rows"], summary["num_units"])
        if tokens is None and found.ticket.granularity == "token_rows":
            console().print("The rows have no names: no tokenizer is at hand. --base MODEL says where one is.")
        if any(row["statistic"] is not None or row["log10_p"] is not None for row in summary["rows"]):
            console().print(PAIRED, soft_wrap=True)
    console().print()
    _show_layers([one.to_dict() for one in shares])
    console().print()
    _show_certificates(certified)


def _find(source: str) -> _Found:
    """The ticket, from this machine or from the Hub with what lies beside it."""
    from ks_lottery.checkpoints.download import download
    from ks_lottery.ticket.certificate import RESULTS_FILES
    from ks_lottery.ticket.hub import pull_ticket_file
    from ks_lottery.ticket.store import SIGNATURE_FILE, ticket_file
    from ks_lottery.ticket.ticket import Ticket

    if Path(source).exists():
        return _Found(Ticket.load(source), ticket_file(source).parent, on_hub=False)
    repo_id, _, revision = source.partition("@")
    file = pull_ticket_file(repo_id, revision or None)
    for name in (SIGNATURE_FILE, *RESULTS_FILES, "tokenizer.json"):
        download(repo_id, name, revision=file.parent.name, missing_ok=True)
    return _Found(Ticket.load(file.parent), file.parent, on_hub=True)


def _tokens(found: _Found, base: str | None) -> "TokenTable | None":
    """A tokenizer for the rows: of `base`, beside the ticket, or of a model that the ticket names."""
    from ks_lottery.checkpoints.reader import hub_place
    from ks_lottery.cli.readable import tokens_of
    from ks_lottery.ticket.card import hub_base_model

    if base is not None:
        place = hub_place(base)
        return tokens_of(base) if place is None else tokens_of(*place)
    ticket = found.ticket
    named = [ticket.base.name, *(ticket.provenance.details.get(side) for side in ("before", "after"))]
    for folder in (str(found.folder), *(name for name in named if isinstance(name, str) and Path(name).is_dir())):
        tokens = tokens_of(folder)
        if tokens is not None:
            return tokens
    repo_id = hub_base_model(ticket.base.name)
    if repo_id is None:
        return None
    return tokens_of(repo_id, ticket.base.revision, cached_only=not found.on_hub)


def _show_facts(summary: Mapping[str, Any], cut: str | None, signature: str) -> None:
    base, provenance = summary["base"], summary["provenance"]
    details = provenance["details"]
    options = details.get("finder_options") or {}
    tested = details.get("tested")
    facts = {
        "ticket": f"{summary['kind']}: what is not selected {_RESTS[summary['kind']]}",
        "base model": f"{base['name']} ({base['model_type']}, {base['num_parameters']:,} weights"
        + (f", revision {base['revision']})" if base["revision"] else ")"),
        "found by": " ".join([provenance["method"], *(f"{name}={value}" for name, value in options.items())]),
        "cut by": MISSING if cut is None else cut,
        "units": f"{summary['num_units']:,} {summary['granularity']}"
        + ("" if tested is None else f" of {tested:,} that could be chosen"),
        "weights": f"{summary['num_trainable']:,}, {percent(summary['density']['units'])} of the matrices that they "
        f"lie in, {percent(summary['density']['model'])} of the model",
        "fingerprint": summary["fingerprint"],
        "signature": signature,
    }
    table = Table(box=None, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, escape(value))
    console().print(table)


def _show_layers(shares: Sequence[Mapping[str, Any]]) -> None:
    table = Table(box=None, header_style="bold")
    table.add_column("layer", overflow="fold")
    table.add_column("share of its weights", no_wrap=True)
    for name in ("", "units"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in shares:
        units = f"{one['units']:,} of {one['of_units']:,}"
        table.add_row(escape(one["layer"]), share_bar(one["share"]), percent(one["share"]), units)
    console().print(table)


def _show_certificates(certified: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    from ks_lottery.ticket.certificate import in_words

    for line in [in_words(run, one) for run, one in certified] or [_NO_CERTIFICATE]:
        console().print(line, soft_wrap=True, markup=False)
