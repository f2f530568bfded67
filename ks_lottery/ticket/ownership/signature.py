"""Ed25519 signatures of a ticket's file: over its fingerprint, base model and provenance."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ks_lottery.checkpoints.strict_json import strict_json_file
from ks_lottery.checkpoints.writer import atomic_file, write_json
from ks_lottery.errors import OptionError, TicketError
from ks_lottery.ticket.ownership.libraries import library
from ks_lottery.ticket.ownership.private_file import write_private
from ks_lottery.ticket.store import SIGNATURE_FILE, ticket_file
from ks_lottery.ticket.ticket import Ticket

_DOMAIN = b"ks_lottery ticket signature 1\n"
_FIELDS = {"algorithm": str, "format": int, "public_key": str, "signature": str, "signed": dict}


@dataclass(frozen=True)
class Signature:
    """A ticket's signature.

    Attributes:
        public_key: 32 bytes, as hex: who signed.
        signature: 64 bytes, as hex.
        signed: what was signed, as JSON values.
    """

    public_key: str
    signature: str
    signed: Mapping[str, Any]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the signature as JSON, atomically."""
        write_json(
            path,
            {
                "algorithm": "ed25519", "format": 1, "public_key": self.public_key, "signature": self.signature,
                "signed": dict(self.signed),
            },
        )  # fmt: skip

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Signature":
        """Read what `save` wrote.

        Raises:
            TicketError: if there is none, or it is damaged, truncated or of an unknown format.
        """
        file = Path(path)
        if not file.is_file():
            raise TicketError(f"There is no signature at {str(file)!r}. ks-lottery sign TICKET --key FILE writes one.")
        try:
            data = strict_json_file(file)
            if not isinstance(data, dict) or {name: type(value) for name, value in data.items()} != _FIELDS:
                raise ValueError(f"it must have {', '.join(_FIELDS)}, of the types that ks-lottery sign writes")
            if (data["algorithm"], data["format"]) != ("ed25519", 1):
                raise ValueError(
                    f"it is of algorithm {data['algorithm']!r}, format {data['format']}; upgrade ks_lottery"
                )
        except ValueError as error:
            raise TicketError(f"The signature {str(file)!r} is damaged or truncated: {error}.") from error
        return cls(data["public_key"], data["signature"], data["signed"])


def signed_content(ticket: Ticket) -> dict[str, Any]:
    """What a signature covers, as JSON values: all that a ticket's file says, and no date.

    The fingerprint stands for kind, granularity, groups and units, a digest for the measured columns.
    """
    columns = hashlib.sha256()
    for name, selection in sorted(ticket.selections.items()):
        for column, values in sorted(selection.columns.items()):
            columns.update(json.dumps([name, column, len(values)]).encode() + values.astype("<f8").tobytes())
    return {
        "fingerprint": ticket.fingerprint,
        "columns": columns.hexdigest(),
        "base": {name: value for name, value in ticket.base.to_dict().items() if name != "shapes"},
        "provenance": {"method": ticket.provenance.method, "details": dict(ticket.provenance.details)},
    }


def signature_file(ticket_path: str | os.PathLike[str]) -> Path:
    """Where the signature of a ticket lies: beside `ticket.safetensors`; `NAME.signature.json` beside another name."""
    file = ticket_file(ticket_path)
    return file.with_name(SIGNATURE_FILE if file.stem == "ticket" else f"{file.stem}.{SIGNATURE_FILE}")


def sign_ticket(ticket: Ticket, private_key: Any) -> Signature:
    """Sign a ticket of any kind.

    Args:
        ticket: what is signed.
        private_key: from `make_key` or `load_private_key`.

    Raises:
        OptionError: if the library cryptography is missing.
    """
    content = json.loads(_canonical(signed_content(ticket)))
    signature = private_key.sign(_DOMAIN + _canonical(content))
    return Signature(_raw(private_key.public_key()).hex(), signature.hex(), content)


def verify_signature(ticket: Ticket, signature: Signature, public_key: Any = None) -> str:
    """Check that a signature is one of this ticket.

    Args:
        ticket: as it was loaded.
        signature: as it was loaded.
        public_key: whose signature it must be, from `load_public_key`; anybody's if None, and then it says only that
            the holder of the returned key signed.

    Returns:
        the public key of who signed, as hex.

    Raises:
        TicketError: if the signature is truncated or forged, of another ticket, or by another key.
        OptionError: if the library cryptography is missing.
    """
    raw = {name: _bytes(getattr(signature, name), name, size) for name, size in (("public_key", 32), ("signature", 64))}
    if public_key is not None and raw["public_key"] != _raw(public_key):
        raise TicketError(
            f"The ticket was signed with the key {signature.public_key[:16]}..., not with {_raw(public_key).hex()[:16]}"
            "... that you gave. Whoever published it is not the holder of your key."
        )
    expected = json.loads(_canonical(signed_content(ticket)))
    different = sorted(key for key in {*expected, *signature.signed} if expected.get(key) != signature.signed.get(key))
    if different:
        raise TicketError(
            f"The signature is not of this ticket: {', '.join(different)} differ. Signed was fingerprint "
            f"{str(signature.signed.get('fingerprint'))[:12]}, and the ticket has {ticket.fingerprint[:12]}."
        )
    ed25519 = library("cryptography.hazmat.primitives.asymmetric.ed25519")
    invalid = library("cryptography.exceptions").InvalidSignature
    try:
        key = ed25519.Ed25519PublicKey.from_public_bytes(raw["public_key"])
        key.verify(raw["signature"], _DOMAIN + _canonical(expected))
    except (invalid, ValueError) as error:
        raise TicketError(
            f"The signature is forged or damaged: the key {signature.public_key[:16]}... did not sign fingerprint "
            f"{ticket.fingerprint[:12]} with this provenance."
        ) from error
    return signature.public_key


def make_key(path: str | os.PathLike[str]) -> Any:
    """Draw a key pair: the private key goes to `path`, PEM of mode 0600, the public one to `path` + ".pub".

    The private key is not encrypted: whoever reads the file can sign.

    Returns:
        the private key.

    Raises:
        OptionError: if `path` exists, or the library cryptography is missing.
    """
    key = library("cryptography.hazmat.primitives.asymmetric.ed25519").Ed25519PrivateKey.generate()
    serialization = library("cryptography.hazmat.primitives.serialization")
    pem = serialization.Encoding.PEM
    write_private(path, key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    with atomic_file(f"{os.fspath(path)}.pub") as temporary:
        temporary.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return key


def load_private_key(path: str | os.PathLike[str]) -> Any:
    """Read a private key that `make_key` wrote.

    Raises:
        OptionError: if there is none, it is no unencrypted Ed25519 key, or the library cryptography is missing.
    """
    serialization = library("cryptography.hazmat.primitives.serialization")
    return _loaded(path, "private", lambda content: serialization.load_pem_private_key(content, password=None))


def load_public_key(path: str | os.PathLike[str]) -> Any:
    """Read the public half of a key, from its `.pub` file; errors as `load_private_key`."""
    serialization = library("cryptography.hazmat.primitives.serialization")
    return _loaded(path, "public", serialization.load_pem_public_key)


def _loaded(path: str | os.PathLike[str], half: str, read: Any) -> Any:
    if not Path(path).is_file():
        raise OptionError(f"There is no {half} key at {str(path)!r}. ks-lottery sign TICKET --key FILE --make-key.")
    exceptions = library("cryptography.exceptions")
    wanted = f"Ed25519{half.capitalize()}Key"
    try:
        key = read(Path(path).read_bytes())
    except (ValueError, TypeError, exceptions.UnsupportedAlgorithm) as error:
        raise OptionError(
            f"{str(path)!r} is no {half} key in unencrypted PEM form. Give one that --make-key wrote."
        ) from error
    if not isinstance(key, getattr(library("cryptography.hazmat.primitives.asymmetric.ed25519"), wanted)):
        raise OptionError(f"{str(path)!r} holds a {type(key).__name__}; an {wanted} is needed. Make one: --make-key.")
    return key


def _bytes(text: str, what: str, size: int) -> bytes:
    try:
        raw = bytes.fromhex(text)
    except ValueError as error:
        raise TicketError(f"The {what} in the signature is damaged: it is no hexadecimal number.") from error
    if len(raw) != size:
        raise TicketError(f"The {what} in the signature is truncated or damaged: {len(raw)} bytes, must be {size}.")
    return raw


def _raw(public_key: Any) -> bytes:
    serialization = library("cryptography.hazmat.primitives.serialization")
    return public_key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def _canonical(content: Mapping[str, Any]) -> bytes:
    """One text for one value: sorted keys, no spaces, ASCII."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
