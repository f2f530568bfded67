"""`ks-lottery verify`: whose a ticket, or a model with zeros, is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ks_lottery.cli.method import usage_errors
from ks_lottery.cli.screen import AsJson, console, percent, print_json
from ks_lottery.errors import OptionError, TicketError
from ks_lottery.ticket.ownership.worth import MARK_WORTH, SIGNATURE_WORTH

if TYPE_CHECKING:
    from ks_lottery.ticket.ownership.reading import Suspect

Suspected = Annotated[
    str,
    typer.Argument(
        metavar="TICKET", help="Folder, file or Hub id of a ticket; for --mark-key also a folder of a model with zeros."
    ),
]
SignatureFile = Annotated[
    str | None, typer.Option("--signature", metavar="FILE", help="Default: signature.json beside the ticket.")
]
PublicKey = Annotated[
    str | None, typer.Option("--public-key", metavar="FILE", help="Whose signature it must be: a .pub file.")
]
MarkKeyFile = Annotated[
    str | None, typer.Option("--mark-key", metavar="FILE", help="The key of a mark: look for it in the mask.")
]
Level = Annotated[float | None, typer.Option("--level", help="Largest p-value of a mark that holds. Default: 1e-9.")]
Threshold = Annotated[
    float, typer.Option("--threshold", help="In a model, weights of at most this magnitude count as zero.")
]


def verify(
    ticket: Suspected,
    signature: SignatureFile = None,
    public_key: PublicKey = None,
    mark_key: MarkKeyFile = None,
    level: Level = None,
    threshold: Threshold = 0.0,
    as_json: AsJson = False,
) -> None:
    """Check a ticket's signature, and the mark in its mask if --mark-key is given.

    A signature proves who published the file, not who trained or found the ticket first. Without --public-key it may be
    anybody's. A mark is checked by the share of its cells that match, with the exact probability that an unrelated mask
    matches as well, times the number of places where it could lie. The exit code is 0 only if all that was asked holds.

    Example: ks-lottery verify ticket --public-key owner.pem.pub --mark-key mark-key.json
    """
    from ks_lottery.ticket.ownership.reading import open_suspect
    from ks_lottery.ticket.ownership.signature import signature_file

    with usage_errors():
        if mark_key is None and (level is not None or threshold):
            raise OptionError("--level and --threshold are for a mark: give its key, --mark-key FILE.")
    suspect = open_suspect(ticket)
    beside = signature_file(ticket)
    asked = signature is not None or public_key is not None
    result: dict[str, Any] = {"signature": None, "mark": None}
    if asked or (beside.is_file() and Path(ticket).exists()):
        result["signature"] = _checked_signature(suspect, signature or str(beside), public_key)
    elif mark_key is None:
        raise TicketError(
            f"There is nothing to verify: no signature at {str(beside)!r}, and no --mark-key. Say where the signature "
            "is: --signature FILE."
        )
    if mark_key is not None:
        with usage_errors():
            result["mark"] = _checked_mark(suspect, mark_key, level, threshold)
    if as_json:
        print_json(result)
    else:
        _show(result)
    if result["mark"] is not None and not result["mark"]["verified"]:
        raise typer.Exit(1)


def _checked_signature(suspect: "Suspect", file: str, public_key: str | None) -> dict[str, Any]:
    from ks_lottery.ticket.ownership.signature import Signature, load_public_key, verify_signature
    from ks_lottery.ticket.ticket import Ticket

    if not isinstance(suspect, Ticket):
        raise TicketError(f"{suspect.name!r} is a model, and signatures are of tickets. Give --mark-key alone.")
    with usage_errors():
        expected = None if public_key is None else load_public_key(public_key)
    signer = verify_signature(suspect, Signature.load(file), expected)
    return {
        "fingerprint": suspect.fingerprint,
        "public_key": signer,
        "expected": public_key is not None,
        "worth": SIGNATURE_WORTH,
    }


def _checked_mark(suspect: "Suspect", file: str, level: float | None, threshold: float) -> dict[str, Any]:
    from ks_lottery.ticket.ownership.chance import LEVEL
    from ks_lottery.ticket.ownership.mark_key import MarkKey
    from ks_lottery.ticket.ownership.reading import verify_mark

    key = MarkKey.load(file)
    reading = verify_mark(suspect, key, level=LEVEL if level is None else level, threshold=threshold)
    return {
        "verified": reading.verified,
        "claimed": key.text,
        "decoded": reading.text,
        "cells": reading.cells,
        "matches": reading.matches,
        "places": reading.places,
        "log10_p": reading.log10_p,
        "level": reading.level,
        "worth": MARK_WORTH,
    }


def _show(result: dict[str, Any]) -> None:
    """Print what holds and what it is worth."""
    signature, mark = result["signature"], result["mark"]
    lines = []
    if signature is not None:
        whose = "that you gave" if signature["expected"] else "of whoever it is: no --public-key says whose it must be"
        lines.append(
            f"The signature is good: fingerprint {signature['fingerprint'][:12]} by the key "
            f"{signature['public_key'][:16]}..., {whose}."
        )
        lines.append(signature["worth"])
    if mark is not None:
        verdict = "The mark holds" if mark["verified"] else "NO mark of this key"
        lines.append(
            f"{verdict}: {mark['matches']} of {mark['cells']} cells match "
            f"({percent(mark['matches'] / mark['cells'])}), log10 p = {mark['log10_p']:.1f} over {mark['places']:,} "
            f"places, and p must be at most {mark['level']:.0e}."
        )
        if mark["decoded"] is not None:
            lines.append(f"It reads: {mark['decoded']!r}.")
        else:
            lines.append("Too many cells are wrong to read its text.")
        if mark["verified"]:
            lines.append(mark["worth"])
    for line in lines:
        console().print(line, soft_wrap=True, markup=False)
