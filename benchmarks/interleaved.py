"""Several ways to do one thing, timed in turn (A B C A B C ...), so that a slow moment of the machine hits them all.

Times of shared machines are not comparable between runs. What counts is the ratio of two methods within one round.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Method:
    """One way to do it.

    Attributes:
        name: what the table calls it.
        run: what is timed; it gets what `prepare` returned, if there is one.
        items: how many items one run handles; times are given per item, so a slow peer may run on a part of the items.
        prepare: called before every run, not timed.
    """

    name: str
    run: Callable[..., object]
    items: float = 1
    prepare: Callable[[], Any] | None = None


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and range of some figures."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds per item of one method, one figure per round."""

    name: str
    seconds: tuple[float, ...]

    def spread(self) -> Spread:
        """Median and range over the rounds."""
        return _spread(self.seconds)

    def over(self, other: "Timing") -> Spread:
        """This method's time divided by another one's, round by round."""
        return _spread([own / theirs for own, theirs in zip(self.seconds, other.seconds, strict=True)])


def interleave(
    methods: Sequence[Method], repeats: int = 5, warm_up: int = 1, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Timing]:
    """Run the methods in turn.

    Args:
        methods: with different names.
        repeats: timed rounds, at least 1.
        warm_up: rounds before them, not timed.
        clock: seconds.

    Returns:
        Name to timing, in the order of `methods`.
    """
    if len({method.name for method in methods}) < len(methods):
        raise ValueError(f"Methods must have different names, got {[method.name for method in methods]}.")
    if repeats < 1:
        raise ValueError(f"At least one round must be timed, got repeats = {repeats}.")
    seconds: dict[str, list[float]] = {method.name: [] for method in methods}
    for turn in range(warm_up + repeats):
        for method in methods:
            prepared = () if method.prepare is None else (method.prepare(),)
            start = clock()
            method.run(*prepared)
            elapsed = clock() - start
            if turn >= warm_up:
                seconds[method.name].append(elapsed / method.items)
    return {name: Timing(name, tuple(figures)) for name, figures in seconds.items()}


def _spread(figures: Sequence[float]) -> Spread:
    return Spread(statistics.median(figures), min(figures), max(figures))
