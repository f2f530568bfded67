"""The keyed stream is SHA-256 in counter mode, uniform, and the same everywhere."""

import hashlib

import numpy as np
import pytest

from ks_lottery.errors import OptionError
from ks_lottery.ticket.ownership.stream import keyed_bits, keyed_bytes, keyed_numbers, require_secret


def test_it_is_sha_256_of_a_counter() -> None:
    first, second = (hashlib.sha256(b"use\0secret" + bytes(7) + bytes([number])).digest() for number in (0, 1))
    assert keyed_bytes(b"secret", "use", 40) == first + second[:8]
    assert keyed_bits(b"secret", "use", 9).tolist() == [bool(bit) for bit in np.unpackbits(bytearray(first))[:9]]
    assert keyed_bytes(b"secret", "another use", 40) != keyed_bytes(b"secret", "use", 40)
    assert keyed_bytes(b"another secret", "use", 40) != keyed_bytes(b"secret", "use", 40)


def test_numbers_are_uniform() -> None:
    numbers = keyed_numbers(b"secret", "use", 70_000, 7)
    counts = np.bincount(numbers, minlength=7)
    assert len(counts) == 7
    assert np.abs(counts - 10_000).max() < 5 * np.sqrt(10_000)


def test_a_short_secret_is_refused() -> None:
    require_secret(bytes(32))
    with pytest.raises(OptionError, match="The secret has 5 bytes and must have 32"):
        require_secret(b"short")
