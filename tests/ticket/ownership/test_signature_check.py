"""A signature beside a ticket is checked where its library is installed, and never taken on trust."""

from pathlib import Path
from typing import Any

import pytest

from ks_lottery.errors import OptionError, TicketError
from ks_lottery.ticket.ownership import signature_check
from ks_lottery.ticket.ownership.signature import make_key, sign_ticket
from ks_lottery.ticket.ownership.signature_check import SignatureCheck, check_signature
from ks_lottery.ticket.ticket import Ticket
from tests.adapter.tickets import make_ticket
from tests.tiny_models import tiny_llama


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_ticket(tiny_llama(), "input").save(tmp_path / "ticket")
    return tmp_path / "ticket"


def sign(folder: Path, ticket: Ticket) -> str:
    signature = sign_ticket(ticket, make_key(folder.parent / "owner.pem"))
    signature.save(folder / "signature.json")
    return signature.public_key


def test_no_signature(folder: Path) -> None:
    assert check_signature(Ticket.load(folder), folder) == SignatureCheck("none")
    assert SignatureCheck("none").in_words() == "none"


def test_a_good_signature_names_its_key(folder: Path) -> None:
    ticket = Ticket.load(folder)
    signer = sign(folder, ticket)
    checked = check_signature(ticket, folder)
    assert checked == SignatureCheck("good", signer)
    assert checked == check_signature(ticket, folder / "ticket.safetensors")
    assert checked.in_words().startswith(f"good, by the key {signer[:16]}...")


def test_a_signature_of_another_ticket_is_an_error(folder: Path) -> None:
    sign(folder, make_ticket(tiny_llama(), "output"))
    with pytest.raises(TicketError, match="The signature is not of this ticket"):
        check_signature(Ticket.load(folder), folder)


def test_without_the_library_it_is_said_to_be_unchecked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise OptionError(f"no {name}")

    sign(folder, Ticket.load(folder))
    monkeypatch.setattr(signature_check, "library", missing)
    checked = check_signature(Ticket.load(folder), folder)
    assert checked == SignatureCheck("unchecked")
    assert "it was not checked: pip install 'ks_lottery[ownership]'" in checked.in_words()
