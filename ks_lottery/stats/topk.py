"""The exact largest of many numbers by a radix descent: a few passes, and no copy of the numbers."""

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ks_lottery.errors import UnitError
from ks_lottery.stats.jit import can_compile
from ks_lottery.stats.topk_vectorised import DIGIT_BITS

_COMPILE_FROM = 2**16  # numbers in a group for which it is worth loading the compiler
_INFINITY = 0x7FF0000000000000  # its bits
_EVERY = np.ones(0, dtype=np.bool_)  # stands for a mask that is True everywhere

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_] | None


def kernels(count: int) -> ModuleType:
    """The compiled kernels, or numpy's for few numbers or where nothing can be compiled; both give the same integers.

    Args:
        count: of numbers.
    """
    if count >= _COMPILE_FROM and can_compile():
        from ks_lottery.stats import topk_compiled

        return topk_compiled
    from ks_lottery.stats import topk_vectorised

    return topk_vectorised


class Descent:
    """Finds the k-th largest of numbers that come in groups, one pass after the other.

    Numbers are compared by 64-bit keys in their order, -0.0 and 0.0 with one key; float32 is widened, which is exact. A
    pass gives every group to `count` and ends with `narrow`, which adds 16 bits to the prefix of the k-th largest key.
    Larger prefixes belong to the k largest for certain, and `left` of the `inside` numbers with this prefix.

    Args:
        k: how many, at least 1.

    Attributes:
        left: how many with the prefix are among the k largest.
        inside: how many have the prefix.
        total: numbers that the first pass counted.
    """

    def __init__(self, k: int) -> None:
        self.left = k
        self.inside = self.total = 0
        self._prefix, self._shift = 0, 64 - DIGIT_BITS
        self._known_shift = 64
        self._low, self._high = np.float64(-np.inf), np.float64(np.inf)  # numbers with the prefix
        self._counts = np.zeros(2**DIGIT_BITS, dtype=np.int64)

    @property
    def all_known(self) -> bool:
        """Whether every bit of the k-th largest key is known: what is inside is tied."""
        return self._known_shift == 0

    @property
    def settled(self) -> bool:
        """Whether it is known which numbers are the k largest, ties going to those that come first."""
        return self._known_shift < 64 and (self.all_known or self.inside == self.left)

    def count(self, values: Floats, allowed: Mask, name: str) -> None:
        """Count one group in this pass.

        Args:
            values: [n] float32 or float64 (others are widened); only read.
            allowed: [n] bool, which numbers take part; None for all.
            name: of the group, for the message.

        Raises:
            UnitError: if a number that takes part is NaN.

        Cost:
            One pass over `values`; beside the 0.5 MiB of this object no memory.
        """
        values, allowed = _ready(values, allowed)
        nan = kernels(len(values)).count_digits(
            values, allowed, self._low, self._high, np.uint64(self._shift), self._counts
        )
        if nan >= 0:
            raise UnitError(
                f"The score of unit {nan} of group {name!r} is NaN, which has no place in an order. Score with finite "
                "numbers: a run that diverged needs a lower learning rate; a 0 / 0 needs a value of its own."
            )

    def narrow(self) -> None:
        """End a pass; after the first one `total` says whether there are k numbers, and if not, nothing is narrowed."""
        if self._known_shift == 64:
            self.total = int(self._counts.sum())
            if self.total < self.left:
                return
        above = self._counts[::-1].cumsum()[::-1] - self._counts  # numbers with a larger digit
        digit = int(np.flatnonzero(above < self.left)[0])
        self.left -= int(above[digit])
        self.inside = int(self._counts[digit])
        self._prefix = (self._prefix << DIGIT_BITS) | digit
        self._known_shift, self._shift = self._shift, max(0, self._shift - DIGIT_BITS)
        self._counts[:] = 0
        first = self._prefix << self._known_shift
        self._low, self._high = _number(first), _number(first + (1 << self._known_shift) - 1)

    def above(self, values: Floats, allowed: Mask, tied: int = 0) -> tuple[NDArray[np.int64], int]:
        """Positions of one group whose prefix is larger, and the first `tied` of those that have the prefix.

        Returns:
            sorted int64 positions; and how many of them have the prefix.

        Cost:
            Two passes over `values`; memory of the result.
        """
        values, allowed = _ready(values, allowed)
        larger, inside = kernels(len(values)).count_places(values, allowed, self._low, self._high)
        taken = min(tied, inside)
        places = np.empty(larger + taken + 1, dtype=np.int64)
        found = kernels(len(values)).place_above(values, allowed, self._low, self._high, taken, places)
        return places[:found], taken

    def within(self, values: Floats, allowed: Mask) -> NDArray[np.int64]:
        """Sorted int64 positions of one group that have the prefix; cost as `above`."""
        values, allowed = _ready(values, allowed)
        places = np.empty(
            kernels(len(values)).count_places(values, allowed, self._low, self._high)[1] + 1, dtype=np.int64
        )
        return places[: kernels(len(values)).place_inside(values, allowed, self._low, self._high, places)]


def _ready(values: Floats, allowed: Mask) -> tuple[Floats, NDArray[np.bool_]]:
    """What the loops take; copies only what is not contiguous or of another dtype."""
    dtype = values.dtype if values.dtype in (np.float32, np.float64) else np.float64
    return np.ascontiguousarray(values, dtype=dtype), _EVERY if allowed is None else np.ascontiguousarray(allowed)


def _number(key: int) -> np.float64:
    """The float64 with this key; infinity for keys beyond its own."""
    signed = min(max(key - 2**63, -_INFINITY), _INFINITY)
    number = np.int64(abs(signed)).view(np.float64)
    return -number if signed < 0 else number
