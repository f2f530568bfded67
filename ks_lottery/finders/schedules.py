"""How density falls over the rounds of an iterative finder, and how many units each round leaves."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

from ks_lottery.errors import OptionError

Schedule = Literal["geometric", "exponential", "linear", "cubic"]
SCHEDULES: tuple[str, ...] = get_args(Schedule)

_SAME = 1e-9  # relative; a round that would drop less than this share of the units is none


def round_densities(schedule: Schedule, density: float, rounds: int = 1, keep: float = 0.8) -> list[float]:
    """Density after each round; it falls from 1 and ends exactly at `density`.

    Args:
        schedule: geometric: each round leaves the share `keep` of what is left, the last one more where it would go
            below `density`; exponential: each of `rounds` rounds leaves the same share, density ** (i / rounds);
            linear: each drops the same share of the original units; cubic: the first rounds drop most,
            density + (1 - density) * (1 - i / rounds) ** 3.
        density: after the last round, in (0, 1).
        rounds: how many, at least 1; a geometric schedule takes as many as it needs instead.
        keep: share of the units left that a round of a geometric schedule keeps, in (0, 1).

    Returns:
        one density per round.

    Raises:
        OptionError: if the schedule is unknown, or a number out of range.

    Source:
        geometric, keep .8: Frankle & Carbin 2019, arXiv 1803.03635. linear, 10 % per round: Chen et al. 2020, arXiv
        2007.12223. cubic: Sanh et al. 2020, arXiv 2005.07683, without warm-up and cool-down.
    """
    if schedule not in SCHEDULES:
        raise OptionError(f"Unknown schedule {schedule!r}; must be one of {', '.join(SCHEDULES)}.")
    if not 0.0 < density < 1.0:
        raise OptionError(
            f"density={density!r} must lie between 0 and 1: the share of the units left by the last round."
        )
    if rounds < 1:
        raise OptionError(f"rounds={rounds!r} must be at least 1.")
    if not 0.0 < keep < 1.0:
        raise OptionError(f"keep={keep!r} must lie between 0 and 1: the share of the units left that a round keeps.")
    if schedule == "geometric":
        rounds = max(1, math.ceil(math.log(density) / math.log(keep) - _SAME))
    shares = [number / rounds for number in range(1, rounds)]
    before = {
        "geometric": lambda: [keep**number for number in range(1, rounds)],
        "exponential": lambda: [density**share for share in shares],
        "linear": lambda: [1 - (1 - density) * share for share in shares],
        "cubic": lambda: [density + (1 - density) * (1 - share) ** 3 for share in shares],
    }[schedule]()
    return [*before, density]


def kept_counts(total: int, densities: Sequence[float]) -> list[int]:
    """Units left after each round: round(density * total), as `Density` counts them.

    Args:
        total: units before the first round.
        densities: after each round, none above the one before.

    Returns:
        one count per round, none above the one before, each at least 1.

    Raises:
        OptionError: if a density is out of (0, 1] or above the one before, or leaves no unit.
    """
    for number, density in enumerate(densities, start=1):
        if not 0.0 < density <= 1.0:
            raise OptionError(f"The density after round {number} is {density!r}; it must be above 0 and at most 1.")
        if round(density * total) < 1:
            raise OptionError(
                f"Density {density:.3g} after round {number} leaves none of {total} units. End at a density of at "
                f"least {1 / max(1, total):.3g}, or choose smaller units."
            )
    for number, (earlier, later) in enumerate(pairwise(densities), start=2):
        if later > earlier:
            raise OptionError(
                f"Density rises from {earlier:.3g} to {later:.3g} in round {number}; rounds only drop units."
            )
    return [round(density * total) for density in densities]
