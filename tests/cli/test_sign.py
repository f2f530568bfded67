"""`ks-lottery sign` signs a ticket's file, marks its mask, and says what that is worth."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ks_lottery.ticket.ownership.mark_key import MarkKey
from ks_lottery.ticket.ownership.reading import verify_mark
from ks_lottery.ticket.ownership.signature import Signature, load_public_key, verify_signature
from ks_lottery.ticket.ownership.worth import MARK_WORTH, SIGNATURE_WORTH
from ks_lottery.ticket.ticket import Ticket
from tests.cli.conftest import Outcome
from tests.ticket.ownership.masks import gaussian_model, magnitude_ticket

Run = Callable[..., Outcome]


@pytest.fixture
def ticket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ticket:
    """A weight ticket in `ticket`, its base model in `base-model`, in the current folder."""
    monkeypatch.chdir(tmp_path)
    gaussian_model().save_pretrained("base-model")
    found = magnitude_ticket(gaussian_model(), 0.2)
    found.save("ticket")
    return found


def test_a_ticket_is_signed(run: Run, ticket: Ticket) -> None:
    outcome = run("sign", "ticket", "--key", "owner.pem", "--make-key")
    assert (outcome.code, outcome.err) == (0, "")
    signature = Signature.load("ticket/signature.json")
    assert verify_signature(ticket, signature, load_public_key("owner.pem.pub")) == signature.public_key
    assert outcome.out.splitlines() == [
        f"Signed ticket, fingerprint {ticket.fingerprint[:12]}, with the key {signature.public_key[:16]}...: "
        "ticket/signature.json.",
        "Others verify it with owner.pem.pub.",
        SIGNATURE_WORTH,
    ]
    assert Path("owner.pem").read_text().splitlines()[1] not in outcome.out
    again = run("sign", "ticket", "--key", "owner.pem", "--json")
    content = json.loads(again.out)
    assert content["public_key"] == signature.public_key
    assert content["worth"] == [SIGNATURE_WORTH]
    assert Signature.load("ticket/signature.json") == signature


def test_a_copy_is_signed(run: Run, ticket: Ticket) -> None:
    assert run("sign", "ticket", "--key", "owner.pem", "--make-key", "--out", "signed/own.safetensors").code == 0
    assert Ticket.load("signed/own.safetensors") == ticket
    verify_signature(ticket, Signature.load("signed/own.signature.json"))
    assert not Path("ticket/signature.json").exists()


def test_a_mask_is_marked(run: Run, ticket: Ticket) -> None:
    outcome = run(
        "sign", "ticket", "--key", "owner.pem", "--make-key", "--mark", "Ada Lovelace", "--base", "base-model",
        "--out", "marked", "--mark-key", "mark-key.json", "--block", 2, "--size", 33,
    )  # fmt: skip
    assert (outcome.code, outcome.err) == (0, "")
    marked, key = Ticket.load("marked"), MarkKey.load("mark-key.json")
    assert (key.text, key.block, key.size) == ("Ada Lovelace", 2, 33)
    assert verify_mark(marked, key).match == 1.0
    assert len(marked) == len(ticket)
    verify_signature(marked, Signature.load("marked/signature.json"))
    assert Ticket.load("ticket") == ticket
    lines = outcome.out.splitlines()
    assert lines[2] == "Marked its mask. The key of the mark is mark-key.json: keep it, and show it to nobody."
    assert lines[3:] == [SIGNATURE_WORTH, MARK_WORTH]
    assert key.secret.hex() not in outcome.out
    assert sorted(path.name for path in Path("marked").iterdir()) == ["signature.json", "ticket.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--block", 3], "--block without --mark TEXT: say what to write into the mask"),
        (["--base", "m", "--mark-key", "k"], "--base and --mark-key without --mark TEXT"),
        (["--mark", "Ada", "--out", "o"], "--mark needs --base, --mark-key: the base model's weights"),
        (
            ["--mark", "Ada", "--base", "base-model", "--out", "o", "--mark-key", "o/key.json"],
            "--mark-key o/key.json lies in --out o, which you publish",
        ),
        (
            ["--mark", "Ada", "--base", "base-model", "--out", "ticket", "--mark-key", "k"],
            "--out ticket is where the unmarked ticket lies",
        ),
        (
            [
                "--make-key",
                "--mark",
                "Ada",
                "--base",
                "base-model",
                "--out",
                "o",
                "--mark-key",
                "base-model/config.json",
            ],
            "--mark-key base-model/config.json exists, and a key that is written over is lost",
        ),
        (
            ["--mark", "x" * 143, "--base", "base-model", "--out", "o", "--mark-key", "k"],
            "The credential has 143 bytes, and the largest pattern",
        ),
        (["--mark", "", "--base", "base-model", "--out", "o", "--mark-key", "k"], "The credential is empty"),
        ([], "There is no private key at 'owner.pem'"),
    ],
)
def test_wrong_usage(run: Run, ticket: Ticket, arguments: list[object], message: str) -> None:
    outcome = run("sign", "ticket", "--key", "owner.pem", *arguments)
    assert outcome.code == 2
    assert outcome.err.startswith(f"Error: {message}")
    assert sorted(path.name for path in Path().iterdir()) == ["base-model", "ticket"]


def test_keys_are_not_written_over(run: Run, ticket: Ticket) -> None:
    Path("owner.pem").write_text("kept")
    outcome = run("sign", "ticket", "--key", "owner.pem", "--make-key")
    assert outcome.code == 2
    assert "'owner.pem' exists, and a key that is written over is lost" in outcome.err
    assert Path("owner.pem").read_text() == "kept"


def test_what_cannot_be_marked(run: Run, ticket: Ticket) -> None:
    magnitude_ticket(gaussian_model(), 0.2, kind="update").save("update")
    marking = (
        "--key",
        "owner.pem",
        "--make-key",
        "--mark",
        "Ada",
        "--out",
        "o",
        "--mark-key",
        "k",
        "--base",
        "base-model",
    )
    outcome = run("sign", "update", *marking)
    assert outcome.code == 1
    assert "Sign its file instead: ks-lottery sign TICKET --key FILE" in outcome.err
    outcome = run("sign", "ticket", *marking, "--size", 57)
    assert outcome.code == 1
    assert "The credential is too long for the mask: 57 x 57 cells" in outcome.err
    assert not Path("owner.pem").exists()
    assert run("sign", "absent", "--key", "owner.pem").code == 1
