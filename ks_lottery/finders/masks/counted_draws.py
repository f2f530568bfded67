"""Uniform numbers that depend on seed, step and unit alone, so that a search draws the same masks on every device."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Shift, odd factor below 2 ** 31: products stay within int64. After two such rounds units 1024 apart still depend.
_ROUNDS = ((17, 0x7FEB352D), (11, 0x21F0AAAD), (15, 0x31848BAB))
_LAST_SHIFT = 14
_WORD = 0xFFFFFFFF
_UNIT = 2**-24  # float32 tells so much apart between 0 and 1
_IN_CACHE = 2**15  # words
_AT_ONCE = 2**24  # words, on other devices


class CountedDraws:
    """Uniform numbers, one per unit and step: a multiply and shift hash, in whole numbers, of the unit's number.

    Args:
        count: units, below 2 ** 32.
        seed: of the draws, 0 or more.
        device: where they are wanted.

    Source:
        The form of the hash is that of MurmurHash3's finaliser, on 32 bits, with shifts and factors after Wellons's
        search for integer hashes; seed and step give two words that are mixed in before and after. Which rounds leave
        units independent was measured.
    """

    def __init__(self, count: int, seed: int, device: "torch.device | str" = "cpu") -> None:
        import torch

        self._count, self._seed, self._device = count, seed, torch.device(device)

    def at(self, step: int) -> "Tensor":
        """[count] float32 from 0 to below 1; of step number `step`.

        Cost:
            On the CPU about the time of `torch.rand`; beside the result a fixed number of words.
        """
        import torch

        draws = torch.empty(self._count, device=self._device)
        before, after = np.random.SeedSequence([self._seed, step]).generate_state(2, np.uint32)
        if self._device.type == "cpu":
            _hash_in_cache(draws.numpy(), before, after)
        else:
            hash_anywhere(draws, int(before), int(after))
        return draws


def _hash_in_cache(draws: "np.ndarray", before: np.uint32, after: np.uint32) -> None:
    """Fill [count] float32, a piece at a time; uint32 wraps around by itself."""
    numbers = np.arange(min(_IN_CACHE, len(draws)), dtype=np.uint32)
    all_words, all_shifted = np.empty_like(numbers), np.empty_like(numbers)
    for first in range(0, len(draws), _IN_CACHE):
        part = draws[first : first + _IN_CACHE]
        words, shifted = all_words[: len(part)], all_shifted[: len(part)]
        np.bitwise_xor(np.add(numbers[: len(part)], np.uint32(first), out=words), before, out=words)
        for shift, factor in _ROUNDS:
            words ^= np.right_shift(words, np.uint32(shift), out=shifted)
            words *= np.uint32(factor)
        words ^= np.right_shift(words, np.uint32(_LAST_SHIFT), out=shifted)
        words ^= after
        words >>= np.uint32(8)
        np.multiply(words, np.float32(_UNIT), out=part, dtype=np.float32, casting="unsafe")


def hash_anywhere(draws: "Tensor", before: int, after: int) -> None:
    """Fill [count] float32 on any device, by int64, which every one of them has and which does not overflow here."""
    import torch

    for first in range(0, len(draws), _AT_ONCE):
        part = draws[first : first + _AT_ONCE]
        words = torch.arange(first, first + len(part), dtype=torch.int64, device=draws.device).bitwise_xor_(before)
        shifted = torch.empty_like(words)
        for shift, factor in _ROUNDS:
            torch.bitwise_right_shift(words, shift, out=shifted)
            words.bitwise_xor_(shifted).mul_(factor).bitwise_and_(_WORD)
        torch.bitwise_right_shift(words, _LAST_SHIFT, out=shifted)
        part.copy_(words.bitwise_xor_(shifted).bitwise_xor_(after).bitwise_right_shift_(8)).mul_(_UNIT)
