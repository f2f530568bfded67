"""Random tickets: every unit has the same chance."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, get_args

import numpy as np

from ks_lottery.errors import OptionError
from ks_lottery.finders.base import FINDERS, Evidence, UnitScores
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup


@FINDERS.register("random")
@dataclass(frozen=True)
class Random:
    """Score = a uniform draw. With the selector `Counts` of `layer_counts`: ERK, balanced and pyramidal tickets.

    A group's draws depend on the seed and on its name alone, so they are the same on every machine and whatever other
    groups there are. The selector takes exactly as many units as it says, where the papers toss a coin per unit.

    Raises:
        OptionError: if the seed is negative, or the kind unknown.

    Source:
        Gadhikar et al. 2023, arXiv 2210.02412; Liu et al. 2022, arXiv 2202.02643.
    """

    name: ClassVar[str] = "random"
    citation: ClassVar[str] = "Gadhikar et al. Why Random Pruning Is All We Need to Start Sparse. ICML 2023."
    needs: ClassVar[type[Evidence]] = Evidence

    kind: Kind = field(
        default="update",
        metadata={"help": "update: what is not drawn keeps its pretrained value; weight: it is zero."},
    )
    seed: int = field(default=0, metadata={"help": "Of the draw; the same seed gives the same units everywhere."})

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise OptionError(f"Random(seed={self.seed!r}): the seed must be 0 or more.")
        if self.kind not in get_args(Kind):
            raise OptionError(f"Random(kind={self.kind!r}): must be one of {', '.join(get_args(Kind))}.")

    def score(self, groups: Sequence[UnitGroup], evidence: Evidence) -> Iterator[UnitScores]:
        """Score every unit; all of them can be chosen.

        Cost:
            Reads no weight. 8 bytes per unit, so that equal draws do not occur.
        """
        for group in groups:
            key = int.from_bytes(hashlib.sha256(group.name.encode()).digest(), "big")
            draws = np.random.default_rng([self.seed, key]).random(group.num_units)
            yield UnitScores(group, score=draws, changed=np.ones(group.num_units, dtype=bool))
