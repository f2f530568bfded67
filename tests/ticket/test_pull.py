"""A ticket's repository arrives whole or not at all, and is what the Hub lists."""

import hashlib
import os
from pathlib import Path

import pytest
from huggingface_hub import constants

from ks_lottery.errors import HubError, OptionError, TicketError
from ks_lottery.ticket.hub import push_folder
from ks_lottery.ticket.ownership.signature import make_key, sign_ticket
from ks_lottery.ticket.pull import pull_folder
from ks_lottery.ticket.ticket import Ticket
from tests.adapter.tickets import make_ticket
from tests.fake_hub import FakeHub
from tests.hub_trouble import Trouble, busy
from tests.tiny_models import tiny_llama

TICKET = "/tester/ticket/resolve/.*/ticket.safetensors"


@pytest.fixture
def ticket(fake_hub: FakeHub, tmp_path: Path) -> Ticket:
    """A ticket on the fake Hub, with more beside it than a ticket needs."""
    folder = tmp_path / "source"
    made = make_ticket(tiny_llama(), "input")
    made.save(folder)
    sign_ticket(made, make_key(tmp_path / "owner.pem")).save(folder / "signature.json")
    (folder / "README.md").write_text("a card")
    (folder / "report").mkdir()
    (folder / "report" / "results.json").write_text('{"rows": []}')
    (folder / "run.py").write_text("print('code')")
    (folder / "optimizer.pt").write_bytes(b"a pickle")
    push_folder(folder, "tester/ticket")
    return made


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_a_ticket_needs_arrives(ticket: Ticket, tmp_path: Path) -> None:
    assert pull_folder("tester/ticket", tmp_path / "out") == ticket
    assert files(tmp_path / "out") == ["README.md", "report/results.json", "signature.json", "ticket.safetensors"]
    assert not (tmp_path / "out" / "README.md").is_symlink()
    assert pull_folder("tester/ticket", tmp_path / "out", ticket_only=True) == ticket
    assert files(tmp_path / "out") == ["signature.json", "ticket.safetensors"]


def test_another_revision(ticket: Ticket, fake_hub: FakeHub, tmp_path: Path) -> None:
    other = make_ticket(tiny_llama(), "output")
    other.save(tmp_path / "other")
    push_folder(tmp_path / "other", "tester/ticket", revision="outputs")
    assert pull_folder("tester/ticket", tmp_path / "out", revision="outputs") == other
    assert not (tmp_path / "out" / "signature.json").exists()  # that of the ticket before it is gone
    with pytest.raises(HubError, match="at revision 'v9': the repository has no such revision"):
        pull_folder("tester/ticket", tmp_path / "none", revision="v9")
    with pytest.raises(HubError, match="the Hub has no such repository, or hides it"):
        pull_folder("tester/absent", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_an_unrelated_folder_is_not_replaced(ticket: Ticket, fake_hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.tex").write_text("years of work")
    asked = len(fake_hub.requests)
    with pytest.raises(OptionError, match="is there and holds no ticket, and pulling would replace all that is in it"):
        pull_folder("tester/ticket", tmp_path / "work")
    assert files(tmp_path / "work") == ["thesis.tex"]
    assert len(fake_hub.requests) == asked


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (
            Trouble(TICKET, "GET", corrupt=True, times=1),
            "'ticket.safetensors' of 'tester/ticket' is damaged: it has hash",
        ),
        (busy(TICKET, 403), "your account or token may not do that"),
        (busy(TICKET, 500), "the Hub answered with status 500"),
        (busy("/api/models/tester/ticket/tree/.*", wait=5), "too many requests. Try again in 5 seconds, as it asks."),
        (busy("/api/models/tester/ticket/tree/.*", 409), "somebody else changes the repository at the same time"),
        (Trouble("/tester/ticket/resolve/.*/README.md", "HEAD", status=502), "the Hub answered with status 502"),
    ],
)
def test_what_goes_wrong_leaves_the_older_folder(
    ticket: Ticket, fake_hub: FakeHub, tmp_path: Path, trouble: Trouble, said: str
) -> None:
    older = make_ticket(tiny_llama(), "both")
    older.save(tmp_path / "out")
    fake_hub.troubles = [trouble]
    with pytest.raises(HubError) as caught:
        pull_folder("tester/ticket", tmp_path / "out")
    assert said in str(caught.value)
    assert Ticket.load(tmp_path / "out") == older
    assert set(os.listdir(tmp_path)) - {"hub-cache", "owner.pem", "owner.pem.pub"} == {"out", "source"}


def test_a_connection_that_breaks_off_goes_on(ticket: Ticket, fake_hub: FakeHub, tmp_path: Path) -> None:
    fake_hub.troubles = [Trouble(TICKET, "GET", drop=True, times=2)]
    assert pull_folder("tester/ticket", tmp_path / "out") == ticket


def test_a_damaged_file_is_fetched_anew(ticket: Ticket, fake_hub: FakeHub, tmp_path: Path) -> None:
    fake_hub.troubles = [Trouble(".*/README.md", "GET", corrupt=True, times=1)]
    expected = hashlib.sha1(b"blob 6\0a card").hexdigest()[:12]
    with pytest.raises(HubError, match=f"'README.md' .* and the Hub lists {expected}. It was removed from the local"):
        pull_folder("tester/ticket", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert pull_folder("tester/ticket", tmp_path / "out") == ticket


def test_what_is_no_ticket(fake_hub: FakeHub, tmp_path: Path) -> None:
    fake_hub.add("tester/other", {"ticket.safetensors": b"\x00" * 8, "../../evil.json": b"{}", ".hidden.json": b"{}"})
    with pytest.raises(TicketError, match="cannot be read"):
        pull_folder("tester/other", tmp_path / "out")
    assert os.listdir(tmp_path) == ["hub-cache"]


def test_offline(ticket: Ticket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        pull_folder("tester/ticket", tmp_path / "out")


def test_a_forged_signature_keeps_everything_out(ticket: Ticket, tmp_path: Path) -> None:
    pull_folder("tester/ticket", tmp_path / "out")
    other = make_ticket(tiny_llama(), "output")
    signed = tmp_path / "forged"
    ticket.save(signed)
    sign_ticket(other, make_key(tmp_path / "thief.pem")).save(signed / "signature.json")
    push_folder(signed, "tester/ticket", revision="forged")
    with pytest.raises(TicketError, match="The signature is not of this ticket"):
        pull_folder("tester/ticket", tmp_path / "out", revision="forged")
    assert Ticket.load(tmp_path / "out") == ticket
    (signed / "signature.json").write_text("{}")
    push_folder(signed, "tester/ticket", revision="damaged")
    with pytest.raises(TicketError, match="is damaged or truncated"):
        pull_folder("tester/ticket", tmp_path / "none", revision="damaged")
    assert not (tmp_path / "none").exists()
