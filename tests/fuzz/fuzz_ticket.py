"""Fuzz target of the ticket readers: what they read is a ticket in every respect, and what they refuse, they name."""

import json
from pathlib import Path

from ks_lottery.errors import LotteryError
from ks_lottery.ticket.card import ticket_card
from ks_lottery.ticket.seeded_store import read_seeded
from ks_lottery.ticket.store import read_ticket_file
from ks_lottery.ticket.summary import ticket_summary
from ks_lottery.ticket.ticket import Ticket
from tests.fuzz.seed_corpus import require_short


def read(data: bytes, folder: Path) -> bool:
    """Read an input; whether it is a ticket.

    Raises:
        Exception: whatever is no `LotteryError`.
    """
    file = folder / "ticket.safetensors"
    file.write_bytes(data)
    found = None
    for reader in (Ticket.load, read_seeded):
        try:
            found = reader(file)
        except LotteryError as error:
            require_short(error)
    if found is not None:
        _use(found, folder)
    return found is not None


def _use(ticket: Ticket, folder: Path) -> None:
    """Everything that needs no model; a ticket that was read also survives being written."""
    assert len(repr(ticket)) > 0
    assert ticket.num_trainable() > 0
    assert 0.0 < ticket.density("units") <= 1.0
    assert ticket.jaccard(ticket) == 1.0
    ticket_card(ticket_summary(ticket), "someone/something", adapter=False)
    for selection in ticket.selections.values():
        for slab in selection.group.slabs:
            if len(selection):
                owned = slab.indices(selection.indices)
                assert owned.min() >= 0
    ticket.save(folder / "again")
    assert Ticket.load(folder / "again") == ticket


def finish(data: bytes, folder: Path) -> bytes:
    """The input with the fingerprint that belongs to its units, where it can be computed."""
    file = folder / "changed.safetensors"
    file.write_bytes(data)
    try:
        header, tensors = read_ticket_file(file)
        fingerprint = Ticket._from_file(header, tensors).fingerprint
    except (LotteryError, TypeError):
        return data
    length = int.from_bytes(data[:8], "little")
    outer = json.loads(data[8 : 8 + length])
    inner = {**json.loads(outer["__metadata__"]["ks_lottery_ticket"]), "fingerprint": fingerprint}
    outer["__metadata__"]["ks_lottery_ticket"] = json.dumps(inner)
    text = json.dumps(outer).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]
