"""The signature that lies beside a ticket, checked where the ticket is read for somebody."""

import os
from dataclasses import dataclass
from typing import Literal

from ks_lottery.errors import OptionError
from ks_lottery.ticket.ownership.libraries import library
from ks_lottery.ticket.ownership.signature import Signature, signature_file, verify_signature
from ks_lottery.ticket.ticket import Ticket


@dataclass(frozen=True)
class SignatureCheck:
    """What is known of a ticket's signature.

    Attributes:
        state: "none": there is none; "good": the holder of `signer` signed this ticket; "unchecked": there is one, and
            the library that could check it is not installed.
        signer: public key of who signed, as hex, where the state is "good".
    """

    state: Literal["none", "good", "unchecked"]
    signer: str | None = None

    def in_words(self) -> str:
        """One line for people."""
        if self.state == "none":
            return "none"
        if self.state == "unchecked":
            return "there is one, and it was not checked: pip install 'ks_lottery[ownership]'"
        return f"good, by the key {str(self.signer)[:16]}...; whose key that is says ks-lottery verify --public-key"


def check_signature(ticket: Ticket, path: str | os.PathLike[str]) -> SignatureCheck:
    """Check the signature beside a ticket, if there is one.

    Args:
        ticket: as it was loaded.
        path: of the ticket: its folder or file.

    Returns:
        what is known. A good signature says who published the file, if the reader knows the key.

    Raises:
        TicketError: if there is a signature and it is damaged, forged, or of another ticket.
    """
    file = signature_file(path)
    if not file.is_file():
        return SignatureCheck("none")
    try:
        library("cryptography.exceptions")
    except OptionError:
        return SignatureCheck("unchecked")
    return SignatureCheck("good", verify_signature(ticket, Signature.load(file)))
