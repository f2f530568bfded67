"""A signature holds for its ticket and its key, and for nothing else."""

import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from ks_lottery.errors import OptionError, TicketError
from ks_lottery.ticket.ownership.signature import (
    Signature,
    load_private_key,
    load_public_key,
    make_key,
    sign_ticket,
    signature_file,
    verify_signature,
)
from ks_lottery.ticket.ticket import Provenance, Selection, Ticket
from tests.adapter.weight_tickets import weight_ticket
from tests.tiny_models import tiny_llama

MODEL = tiny_llama()
TICKET = weight_ticket(MODEL, "token_rows", lambda group: [3, 5, 9], kind="update")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    make_key(folder / "owner.pem")
    make_key(folder / "other.pem")
    return folder


def signed(keys: Path, ticket: Ticket = TICKET) -> Signature:
    return sign_ticket(ticket, load_private_key(keys / "owner.pem"))


def test_a_signature_survives_files(keys: Path, tmp_path: Path) -> None:
    TICKET.save(tmp_path)
    signed(keys, Ticket.load(tmp_path)).save(signature_file(tmp_path))
    assert signature_file(tmp_path) == tmp_path / "signature.json"
    assert signature_file(tmp_path / "first.safetensors") == tmp_path / "first.signature.json"
    signature = Signature.load(tmp_path / "signature.json")
    public = load_public_key(keys / "owner.pem.pub")
    signer = verify_signature(Ticket.load(tmp_path), signature, public)
    assert signer == signature.public_key == public.public_bytes_raw().hex()
    assert verify_signature(TICKET, signature) == signer
    assert signed(keys) == signature  # Ed25519 is deterministic, and no date is signed


def test_update_and_weight_tickets_of_every_unit_are_signed(keys: Path) -> None:
    for units, kind in (("weights", "weight"), ("heads", "weight"), ("neurons", "update")):
        ticket = weight_ticket(MODEL, units, lambda group: [0, 1], kind=kind)
        verify_signature(ticket, signed(keys, ticket))
        with pytest.raises(TicketError, match="is not of this ticket: .*fingerprint"):
            verify_signature(TICKET, signed(keys, ticket))


def test_private_keys_are_private(keys: Path) -> None:
    assert stat.S_IMODE(os.stat(keys / "owner.pem").st_mode) == 0o600
    assert "PRIVATE" not in (keys / "owner.pem.pub").read_text()
    with pytest.raises(OptionError, match=r"owner.pem' exists, and a key that is written over is lost"):
        make_key(keys / "owner.pem")


def test_another_ticket_s_signature_is_refused(keys: Path) -> None:
    other = TICKET.with_units({"input": [3, 5, 10]}, TICKET.provenance)
    with pytest.raises(TicketError, match="not of this ticket: fingerprint differ. Signed was fingerprint "):
        verify_signature(other, signed(keys))
    renamed = replace(TICKET, provenance=Provenance("ks"))
    with pytest.raises(TicketError, match="not of this ticket: provenance differ"):
        verify_signature(renamed, signed(keys))
    (name,) = TICKET.selections
    selection = TICKET.selections[name]
    measured = Selection(selection.group, selection.indices, {"statistic": np.array([0.1, 0.2, 0.3])})
    with pytest.raises(TicketError, match="not of this ticket: columns differ"):
        verify_signature(replace(TICKET, selections={name: measured}), signed(keys))
    with pytest.raises(TicketError, match="not of this ticket: base differ"):
        verify_signature(replace(TICKET, base=replace(TICKET.base, name="another")), signed(keys))


def test_forged_signatures_are_refused(keys: Path) -> None:
    signature = signed(keys)
    flipped = bytearray.fromhex(signature.signature)
    flipped[7] ^= 1
    stranger = sign_ticket(TICKET, load_private_key(keys / "other.pem"))
    other = TICKET.with_units({"input": [3, 5, 10]}, TICKET.provenance)
    for forged in (
        replace(signature, signature=bytes(flipped).hex()),
        replace(signature, public_key=stranger.public_key),
        replace(signature, signature=signed(keys, other).signature),
        replace(signature, signature=bytes(64).hex()),
    ):
        with pytest.raises(TicketError, match="The signature is forged or damaged: the key .* did not sign"):
            verify_signature(TICKET, forged)
    verify_signature(TICKET, stranger)
    with pytest.raises(TicketError, match=r"was signed with the key .* not with .* that you gave"):
        verify_signature(TICKET, stranger, load_public_key(keys / "owner.pem.pub"))


def test_truncated_signatures_are_refused(keys: Path) -> None:
    signature = signed(keys)
    with pytest.raises(
        TicketError, match="The signature in the signature is truncated or damaged: 63 bytes, must be 64"
    ):
        verify_signature(TICKET, replace(signature, signature=signature.signature[:-2]))
    with pytest.raises(TicketError, match="The public_key in the signature is truncated or damaged: 0 bytes"):
        verify_signature(TICKET, replace(signature, public_key=""))
    with pytest.raises(TicketError, match="is damaged: it is no hexadecimal number"):
        verify_signature(TICKET, replace(signature, signature="x" * 128))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "it is of algorithm 'ed25519', format 2; upgrade ks_lottery"),
        ({"algorithm": "rsa"}, "it is of algorithm 'rsa'"),
        ({"signed": "all"}, "it must have algorithm, format"),
        ({"more": 1}, "it must have algorithm, format"),
    ],
)
def test_changed_signature_files_are_refused(keys: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    signed(keys).save(tmp_path / "signature.json")
    content = json.loads((tmp_path / "signature.json").read_text())
    (tmp_path / "signature.json").write_text(json.dumps({**content, **change}))
    with pytest.raises(TicketError, match=message):
        Signature.load(tmp_path / "signature.json")


def test_missing_and_cut_signature_files_are_refused(keys: Path, tmp_path: Path) -> None:
    with pytest.raises(TicketError, match="There is no signature at"):
        Signature.load(tmp_path / "signature.json")
    signed(keys).save(tmp_path / "signature.json")
    whole = (tmp_path / "signature.json").read_bytes()
    for size in (0, 40, len(whole) - 3):
        (tmp_path / "signature.json").write_bytes(whole[:size])
        with pytest.raises(TicketError, match="is damaged or truncated"):
            Signature.load(tmp_path / "signature.json")


def test_files_that_are_no_keys_are_refused(keys: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="There is no private key at .*--make-key"):
        load_private_key(tmp_path / "absent")
    (tmp_path / "text").write_text("secret")
    with pytest.raises(OptionError, match="is no private key in unencrypted PEM form"):
        load_private_key(tmp_path / "text")
    with pytest.raises(OptionError, match="is no public key in unencrypted PEM form"):
        load_public_key(keys / "owner.pem")
    foreign = rsa.generate_private_key(65537, 1024)
    (tmp_path / "rsa").write_bytes(foreign.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(OptionError, match="holds a RSAPrivateKey; an Ed25519PrivateKey is needed"):
        load_private_key(tmp_path / "rsa")
    locked = load_private_key(keys / "owner.pem").private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")
    )
    (tmp_path / "locked").write_bytes(locked)
    with pytest.raises(OptionError, match="is no private key in unencrypted PEM form"):
        load_private_key(tmp_path / "locked")
