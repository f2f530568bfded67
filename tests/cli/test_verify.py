"""`ks-lottery verify` says what holds, refuses what does not, and says what each proof is worth."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ks_lottery.ticket.ownership.mark import embed_mark
from ks_lottery.ticket.ownership.signature import Signature, make_key, sign_ticket
from ks_lottery.ticket.ownership.worth import MARK_WORTH, SIGNATURE_WORTH
from ks_lottery.ticket.ticket import Provenance, Ticket
from tests.cli.conftest import Outcome
from tests.ticket.ownership.masks import OWNER, QUERY, SECRET, gaussian_model, magnitude_ticket

Run = Callable[..., Outcome]


@pytest.fixture
def marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ticket:
    """In the current folder: a marked and signed ticket in `ticket`, its keys, and a stranger's public key."""
    monkeypatch.chdir(tmp_path)
    model = gaussian_model()
    ticket, key = embed_mark(magnitude_ticket(model, 0.2), model, OWNER, secret=SECRET)
    ticket.save("ticket")
    key.save("mark-key.json")
    sign_ticket(ticket, make_key("owner.pem")).save("ticket/signature.json")
    make_key("stranger.pem")
    return ticket


def test_a_signed_and_marked_ticket(run: Run, marked: Ticket) -> None:
    outcome = run("verify", "ticket", "--public-key", "owner.pem.pub", "--mark-key", "mark-key.json")
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[0].startswith(f"The signature is good: fingerprint {marked.fingerprint[:12]} by the key ")
    assert lines[0].endswith("..., that you gave.")
    assert lines[1] == SIGNATURE_WORTH
    assert lines[2].startswith("The mark holds: 623 of 623 cells match (100 %), log10 p = -18")
    assert lines[2].endswith("places, and p must be at most 1e-09.")
    assert lines[3:] == [f"It reads: {OWNER!r}.", MARK_WORTH]
    assert SECRET.hex() not in outcome.out


def test_json(run: Run, marked: Ticket) -> None:
    content = json.loads(run("verify", "ticket", "--mark-key", "mark-key.json", "--json").out)
    assert content["signature"]["public_key"] == Signature.load("ticket/signature.json").public_key
    assert content["signature"]["expected"] is False
    assert content["signature"]["worth"] == SIGNATURE_WORTH
    mark = content["mark"]
    assert (mark["verified"], mark["claimed"], mark["decoded"]) == (True, OWNER, OWNER)
    assert (mark["cells"], mark["matches"], mark["level"], mark["worth"]) == (623, 623, 1e-9, MARK_WORTH)
    assert QUERY not in json.dumps(content)


def test_without_a_public_key_it_says_so(run: Run, marked: Ticket) -> None:
    outcome = run("verify", "ticket", "--signature", "ticket/signature.json")
    assert outcome.code == 0
    assert "of whoever it is: no --public-key says whose it must be" in outcome.out


def test_a_stranger_s_signature_is_refused(run: Run, marked: Ticket) -> None:
    outcome = run("verify", "ticket", "--public-key", "stranger.pem.pub")
    assert (outcome.code, outcome.out) == (1, "")
    assert "Whoever published it is not the holder of your key" in outcome.err


def test_a_forged_signature_is_refused(run: Run, marked: Ticket) -> None:
    content = json.loads(Path("ticket/signature.json").read_text())
    Path("ticket/signature.json").write_text(json.dumps({**content, "signature": "00" * 64}))
    outcome = run("verify", "ticket")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("Error: The signature is forged or damaged")
    Path("ticket/signature.json").write_text(json.dumps(content)[:100])
    assert "is damaged or truncated" in run("verify", "ticket").err


def test_an_unmarked_ticket_does_not_hold(run: Run, marked: Ticket) -> None:
    magnitude_ticket(gaussian_model(), 0.2).save("unmarked")
    outcome = run("verify", "unmarked", "--mark-key", "mark-key.json")
    assert (outcome.code, outcome.err) == (1, "")
    lines = outcome.out.splitlines()
    assert lines[0].startswith("NO mark of this key: ")
    assert lines[1:] == ["Too many cells are wrong to read its text."]
    assert json.loads(run("verify", "unmarked", "--mark-key", "mark-key.json", "--json").out)["mark"]["decoded"] is None


def test_a_thief_s_model_is_read(run: Run, marked: Ticket) -> None:
    model = gaussian_model()
    with torch.no_grad():
        weight = model.get_parameter(QUERY)
        weight.copy_(torch.where(marked.masks()[QUERY], weight, 1e-6))
    model.save_pretrained("model")
    hidden = run("verify", "model", "--mark-key", "mark-key.json")
    assert hidden.code == 1
    found = run("verify", "model", "--mark-key", "mark-key.json", "--threshold", 1e-5)
    assert found.code == 0
    assert found.out.startswith("The mark holds: 623 of 623")
    outcome = run("verify", "model", "--signature", "ticket/signature.json", "--mark-key", "mark-key.json")
    assert outcome.code == 1
    assert "'model' is a model, and signatures are of tickets" in outcome.err


def test_nothing_to_verify(run: Run, marked: Ticket) -> None:
    Path("ticket/signature.json").unlink()
    outcome = run("verify", "ticket")
    assert outcome.code == 1
    assert outcome.err.startswith("Error: There is nothing to verify: no signature at 'ticket/signature.json'")
    assert "There is no signature at" in run("verify", "ticket", "--public-key", "owner.pem.pub").err
    assert run("verify", "ticket", "--mark-key", "mark-key.json").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--level", 0.1], "--level and --threshold are for a mark"),
        (["--threshold", 0.1], "--level and --threshold are for a mark"),
        (["--mark-key", "mark-key.json", "--level", 2], "level=2.0: a claim holds below"),
        (["--mark-key", "mark-key.json", "--threshold", 1], "threshold=1.0: a magnitude, from 0, for a model"),
        (["--public-key", "absent.pub"], "There is no public key at 'absent.pub'"),
    ],
)
def test_wrong_usage(run: Run, marked: Ticket, arguments: list[object], message: str) -> None:
    outcome = run("verify", "ticket", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"Error: {message}")


def test_a_damaged_mark_key_is_an_error(run: Run, marked: Ticket) -> None:
    Path("bad.json").write_text("{}")
    outcome = run("verify", "ticket", "--mark-key", "bad.json")
    assert outcome.code == 1
    assert "'bad.json' is damaged or no mark key" in outcome.err


def test_other_units_cannot_carry_a_mark(run: Run, marked: Ticket) -> None:
    other = magnitude_ticket(gaussian_model(), 0.2, kind="update").with_units({QUERY: np.arange(3)}, Provenance("hand"))
    other.save("update")
    assert "Sign its file instead" in run("verify", "update", "--mark-key", "mark-key.json").err
