"""`ks-lottery sign`: say that a ticket is yours, in its file and, if wanted, in its mask."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ks_lottery.cli.method import usage_errors
from ks_lottery.cli.screen import AsJson, console, print_json
from ks_lottery.errors import OptionError
from ks_lottery.ticket.ownership.worth import MARK_WORTH, SIGNATURE_WORTH
from ks_lottery.ticket.store import ticket_file

SignedTicket = Annotated[str, typer.Argument(metavar="TICKET", help="Folder or file of a saved ticket.")]
KeyFile = Annotated[str, typer.Option("--key", metavar="FILE", help="Your private key, an Ed25519 key in PEM form.")]
MakeKey = Annotated[
    bool, typer.Option("--make-key", help="Make that key: FILE is for you alone, FILE.pub for everybody.")
]
MarkText = Annotated[
    str | None,
    typer.Option("--mark", metavar="TEXT", help="Write this text into the mask of a weight ticket of single weights."),
]
BaseModel = Annotated[
    str | None, typer.Option("--base", metavar="MODEL", help="Folder or Hub id of the ticket's base model; for --mark.")
]
OutFolder = Annotated[
    str | None, typer.Option("--out", metavar="DIR", help="Where the marked ticket goes, or a signed copy.")
]
MarkKeyFile = Annotated[
    str | None,
    typer.Option("--mark-key", metavar="FILE", help="Where the key of the mark goes; outside what you publish."),
]
Block = Annotated[int | None, typer.Option("--block", help="Weights along a side of a cell, 1 to 8. Default: 3.")]
PatternSize = Annotated[
    int | None,
    typer.Option("--size", help="Cells along a side of the pattern, 21 to 57. Default: the least that holds TEXT."),
]


def sign(
    ticket: SignedTicket,
    key: KeyFile,
    make_key: MakeKey = False,
    mark: MarkText = None,
    base: BaseModel = None,
    out: OutFolder = None,
    mark_key: MarkKeyFile = None,
    block: Block = None,
    size: PatternSize = None,
    as_json: AsJson = False,
) -> None:
    """Sign a ticket's file and, with --mark, its mask too.

    The signature goes to signature.json beside the ticket. It covers units, base model, provenance and measured
    columns. It proves who published this file, not who trained or found the ticket first.

    --mark writes a text into the mask of a weight ticket, before the ticket is trained, and leaves as many weights in
    each matrix as there were. It proves that who made the mask knew the key of the mark. Whoever has that key can
    remove the mark: keep it to yourself.

    Example: ks-lottery sign ticket --key owner.pem --make-key
    """
    from ks_lottery.ticket.ownership.signature import load_private_key, sign_ticket, signature_file
    from ks_lottery.ticket.ownership.signature import make_key as make_key_pair
    from ks_lottery.ticket.ticket import Ticket

    with usage_errors():
        _require_options(ticket, mark, {"--base": base, "--out": out, "--mark-key": mark_key}, block, size)
    chosen = Ticket.load(ticket)
    found = None
    with usage_errors():
        if mark is not None:
            from ks_lottery.ticket.ownership.mark import embed_mark

            chosen, found = embed_mark(chosen, str(base), mark, block=3 if block is None else block, size=size)
        private = make_key_pair(key) if make_key else load_private_key(key)
        if found is not None:
            found.save(str(mark_key))
    if out is not None:
        chosen.save(out)
    file = signature_file(ticket if out is None else out)
    signature = sign_ticket(chosen, private)
    signature.save(file)
    summary: dict[str, Any] = {
        "ticket": ticket if out is None else out,
        "fingerprint": chosen.fingerprint,
        "signature": str(file),
        "public_key": signature.public_key,
        "mark_key": mark_key,
        "worth": [SIGNATURE_WORTH] if found is None else [SIGNATURE_WORTH, MARK_WORTH],
    }
    if as_json:
        print_json(summary)
    else:
        _show(summary, f"{key}.pub")


def _require_options(
    ticket: str, mark: str | None, for_mark: dict[str, str | None], block: int | None, size: int | None
) -> None:
    """Check what belongs together.

    Raises:
        OptionError: if an option of --mark stands alone or is missing, the key of the mark would be published or
            would take the place of a file, or the marked ticket would take the place of the unmarked one.
    """
    if mark is None:
        alone = {"--base": for_mark["--base"], "--mark-key": for_mark["--mark-key"], "--block": block, "--size": size}
        without = [name for name, value in alone.items() if value is not None]
        if without:
            raise OptionError(f"{' and '.join(without)} without --mark TEXT: say what to write into the mask.")
        return
    missing = [name for name, value in for_mark.items() if value is None]
    if missing:
        raise OptionError(
            f"--mark needs {', '.join(missing)}: the base model's weights, a folder for the marked ticket, and a file "
            "for the key that finds the mark."
        )
    folder, secret = Path(str(for_mark["--out"])).resolve(), Path(str(for_mark["--mark-key"])).resolve()
    if folder in secret.parents or secret == folder:
        raise OptionError(
            f"--mark-key {for_mark['--mark-key']} lies in --out {for_mark['--out']}, which you publish. "
            "Keep it elsewhere."
        )
    if secret.exists():
        raise OptionError(f"--mark-key {for_mark['--mark-key']} exists, and a key that is written over is lost.")
    if ticket_file(folder) == ticket_file(Path(ticket).resolve()):
        raise OptionError(
            f"--out {for_mark['--out']} is where the unmarked ticket lies. Give another folder: it is needed to raise "
            "the new weights before training."
        )


def _show(summary: dict[str, Any], public_key_file: str) -> None:
    """Print what was written and what it is worth."""
    lines = [
        f"Signed {summary['ticket']}, fingerprint {summary['fingerprint'][:12]}, with the key "
        f"{summary['public_key'][:16]}...: {summary['signature']}.",
        f"Others verify it with {public_key_file}.",
    ]
    if summary["mark_key"]:
        lines.append(f"Marked its mask. The key of the mark is {summary['mark_key']}: keep it, and show it to nobody.")
    for line in (*lines, *summary["worth"]):
        console().print(line, soft_wrap=True, markup=False)
