"""`ks-lottery push`: a ticket or an adapter to the Hugging Face Hub."""

from typing import TYPE_CHECKING, Annotated

import typer

from ks_lottery.cli.method import usage_errors
from ks_lottery.cli.screen import AsJson, console, only_json, print_json, print_note
from ks_lottery.errors import OptionError

if TYPE_CHECKING:
    from ks_lottery.ticket.tokens import TokenTable

Folder = Annotated[str, typer.Argument(metavar="FOLDER", help="Folder of a saved ticket or adapter, or of both.")]
RepoId = Annotated[
    str, typer.Argument(metavar="REPO_ID", help="Where to: user/name, or name in your own account; made if need be.")
]
Private = Annotated[
    bool | None,
    typer.Option("--private/--public", help="Who can see a new repository. Default: as your account is set up."),
]
Revision = Annotated[str | None, typer.Option("--revision", metavar="BRANCH", help="Branch; made if there is none.")]
Message = Annotated[str, typer.Option("--message", metavar="TEXT", help="Headline of the commit.")]
TicketOption = Annotated[
    str | None, typer.Option("--ticket", metavar="TICKET", help="Put this ticket beside the adapter.")
]
ReportOption = Annotated[
    str | None, typer.Option("--report", metavar="DIR", help="Put this report beside it; its scores enter the card.")
]
RunName = Annotated[str, typer.Option("--run", metavar="NAME", help="Row of the report that is the model's own.")]
BaseModel = Annotated[
    str | None, typer.Option("--base-model", metavar="HUB_ID", help="Base model as others find it on the Hub.")
]
DatasetOption = Annotated[
    str | None,
    typer.Option("--dataset", metavar="HUB_ID", help="Test data of the scores. Default: as the report names it."),
]
Language = Annotated[
    list[str] | None, typer.Option("--language", metavar="CODE", help="Language, such as de; repeatable.")
]
License = Annotated[str | None, typer.Option("--license", metavar="ID", help="Licence, such as apache-2.0.")]


def push(
    folder: Folder,
    repo_id: RepoId,
    private: Private = None,
    revision: Revision = None,
    message: Message = "Upload lottery ticket",
    ticket: TicketOption = None,
    report: ReportOption = None,
    run: RunName = "partial tuning",
    base_model: BaseModel = None,
    dataset: DatasetOption = None,
    language: Language = None,
    license: License = None,
    as_json: AsJson = False,
) -> None:
    """Push a ticket, an adapter or both to the Hugging Face Hub in one commit, with a model card.

    The token is the one of `hf auth login`, or HF_TOKEN; it is never printed. A card is written where the folder has
    none of its own: base model, tags by which `ks-lottery pull --list` finds it, and the scores of a report. FOLDER
    stays as it is. Pickles, checkpoints, hidden files and what quotes test sentences are not pushed, and nothing at
    all is pushed if a private key, the key of a mark or an access token is among the files.

    Example: ks-lottery push adapter me/my-ticket --ticket ticket --private
    """
    from ks_lottery.ticket.card import hub_base_model
    from ks_lottery.ticket.publish import Publication, publish

    with usage_errors():
        if base_model is not None and hub_base_model(base_model) is None:
            raise OptionError(
                f"--base-model {base_model}: others cannot load that. Give a Hub id such as user/name, or leave it out."
            )
    what = Publication(
        ticket=ticket,
        report=report,
        base_model=base_model,
        run=run,
        dataset=None if dataset is None else {"type": dataset, "name": dataset, "split": "test"},
        language=tuple(language or ()),
        license=license,
        tokenizer=_tokens(folder, ticket),
    )
    with usage_errors(), only_json(as_json):
        pushed = publish(folder, repo_id, what, private=private, revision=revision, commit_message=message)
    if pushed.base_model is None:
        print_note("The base model has no Hub id, so that others cannot know which it is. --base-model HUB_ID says it.")
    if as_json:
        print_json({"url": pushed.url, "files": list(pushed.files), "base_model": pushed.base_model})
        return
    console().print(f"Pushed {len(pushed.files)} files: {pushed.url}", soft_wrap=True, markup=False)


def _tokens(folder: str, ticket: str | None) -> "TokenTable | None":
    """A tokenizer for the rows in the card: beside the ticket or adapter, or of a base model on this machine."""
    from pathlib import Path

    from ks_lottery.cli.readable import tokens_of
    from ks_lottery.ticket.store import ticket_file
    from ks_lottery.ticket.ticket import Ticket

    source = ticket or folder
    if not ticket_file(source).is_file():
        return None
    details = Ticket.load(source).provenance.details
    places = [folder, *(details.get(side) for side in ("before", "after"))]
    found = (tokens_of(place) for place in places if isinstance(place, str) and Path(place).is_dir())
    return next((tokens for tokens in found if tokens is not None), None)
