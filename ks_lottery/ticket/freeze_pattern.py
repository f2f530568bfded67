"""A freeze pattern: units that are out for good, units that are in for good, and the free rest, drawn from a seed."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ks_lottery.errors import OptionError

PRUNED, FREE, LOCKED = -1, 0, 1
_MOST_UNITS = 2**48


@dataclass(frozen=True, slots=True)
class FrozenCounts:
    """How many units of a group are frozen.

    Attributes:
        units: in the group.
        pruned: never in a ticket.
        locked: always in it.

    Raises:
        OptionError: if these are no whole numbers of 0 or more, or more units are frozen than there are.
    """

    units: int
    pruned: int
    locked: int

    def __post_init__(self) -> None:
        given = (self.units, self.pruned, self.locked)
        if not all(type(number) is int and 0 <= number <= _MOST_UNITS for number in given):
            raise OptionError(f"{self}: each must be a whole number from 0 to {_MOST_UNITS}.")
        if self.pruned + self.locked > self.units:
            raise OptionError(
                f"{self}: {self.pruned + self.locked} of {self.units} units would be frozen. Freeze fewer."
            )

    @property
    def free(self) -> int:
        """Units that are searched."""
        return self.units - self.pruned - self.locked


@dataclass(frozen=True)
class FreezePattern:
    """Which units of each group are pruned, locked and free.

    The pattern is a function of seed, group name and counts, the same on every machine: it is drawn on the CPU from
    the raw words of PCG64, whose stream numpy guarantees.

    Attributes:
        seed: of the draw.
        counts: group name to its counts; the order is the caller's.

    Raises:
        OptionError: if the seed is no whole number of 0 or more, or no unit is free.

    Source:
        Otsuka et al. 2025, arXiv 2402.14029.
    """

    seed: int
    counts: Mapping[str, FrozenCounts]

    def __post_init__(self) -> None:
        if type(self.seed) is not int or self.seed < 0:
            raise OptionError(f"FreezePattern(seed={self.seed!r}): must be a whole number of 0 or more.")
        if not self.free:
            raise OptionError(
                f"FreezePattern: all {sum(one.units for one in self.counts.values())} units are frozen, so there is "
                "nothing to search. Freeze fewer."
            )

    @property
    def units(self) -> int:
        """Units of all groups."""
        return sum(one.units for one in self.counts.values())

    @property
    def free(self) -> int:
        """Units that are searched."""
        return sum(one.free for one in self.counts.values())

    @property
    def locked(self) -> int:
        """Units that are always in the ticket."""
        return sum(one.locked for one in self.counts.values())

    def of_group(self, name: str) -> NDArray[np.int8]:
        """Draw the pattern of one group.

        Returns:
            [units] int8: -1 pruned, 0 free, 1 locked.

        Cost:
            Linear in the units; 8 bytes for each while it is drawn.
        """
        counts = self.counts[name]
        pattern = np.zeros(counts.units, dtype=np.int8)
        if not counts.pruned + counts.locked:
            return pattern
        key = int.from_bytes(hashlib.sha256(name.encode()).digest(), "big")
        words = np.random.PCG64(np.random.SeedSequence([self.seed, key])).random_raw(counts.units)
        pattern[_smallest(words, counts.pruned + counts.locked)] = LOCKED
        pattern[_smallest(words, counts.pruned)] = PRUNED
        return pattern

    def to_dict(self) -> dict[str, Any]:
        """A JSON form that `from_dict` reads back."""
        counts = {name: [one.units, one.pruned, one.locked] for name, one in self.counts.items()}
        return {"seed": self.seed, "counts": counts}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "FreezePattern":
        """Read what `to_dict` wrote.

        Raises:
            OptionError: as the constructor.
            KeyError, TypeError, AttributeError: if it is another thing.
        """
        return cls(data["seed"], {str(name): FrozenCounts(*numbers) for name, numbers in data["counts"].items()})


def _smallest(words: NDArray[np.uint64], count: int) -> NDArray[np.bool_]:
    """Mask of the `count` smallest words; of equal ones, those that come first."""
    if count in (0, len(words)):
        return np.full(len(words), bool(count))
    threshold = np.partition(words, count - 1)[count - 1]
    mask: NDArray[np.bool_] = words < threshold
    mask[np.flatnonzero(words == threshold)[: count - int(mask.sum())]] = True
    return mask
