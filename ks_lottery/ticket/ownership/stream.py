"""Bits that only the holder of a secret can compute: SHA-256 in counter mode, the same on every machine."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from ks_lottery.errors import OptionError

SECRET_BYTES = 32


def require_secret(secret: bytes) -> None:
    """Check a secret's length.

    Raises:
        OptionError: if it has not 32 bytes.
    """
    if len(secret) != SECRET_BYTES:
        raise OptionError(
            f"The secret has {len(secret)} bytes and must have {SECRET_BYTES}. Draw one: secrets.token_bytes(32)."
        )


def keyed_bytes(secret: bytes, purpose: str, count: int) -> bytes:
    """Pseudo-random bytes.

    Args:
        secret: what they depend on.
        purpose: what they are for; other purposes give unrelated bytes.
        count: how many.

    Returns:
        the first `count` bytes of SHA-256(purpose, 0, secret, counter) for counter 0, 1, ...
    """
    start = hashlib.sha256(purpose.encode() + b"\0" + secret)
    pieces = []
    for counter in range(-(-count // start.digest_size)):
        piece = start.copy()
        piece.update(counter.to_bytes(8, "big"))
        pieces.append(piece.digest())
    return b"".join(pieces)[:count]


def keyed_bits(secret: bytes, purpose: str, count: int) -> NDArray[np.bool_]:
    """[count] pseudo-random bits; arguments as `keyed_bytes`."""
    packed = np.frombuffer(keyed_bytes(secret, purpose, -(-count // 8)), dtype=np.uint8)
    return np.unpackbits(packed)[:count].astype(bool)


def keyed_numbers(secret: bytes, purpose: str, count: int, below: int) -> NDArray[np.int64]:
    """[count] pseudo-random integers in 0..below-1, uniform up to below / 2**64; arguments as `keyed_bytes`."""
    words = np.frombuffer(keyed_bytes(secret, purpose, 8 * count), dtype=">u8")
    return (words % np.uint64(below)).astype(np.int64)
