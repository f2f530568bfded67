"""Means over seeds of what the tests of a study measured."""

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np

from ks_lottery.ticket.markdown import MISSING
from replication.laboratory import Laboratory

LEAST_GAIN = 1.0
"""BLEU that a gain has at least before shares of it are taken."""


class Means:
    """Reads the finished tests and trainings of a study.

    Args:
        lab: of the study.
    """

    def __init__(self, lab: Laboratory) -> None:
        self.lab = lab

    def values(self, direction: str, name: str, key: str, kind: str = "tested", suffix: str = "") -> list[float]:
        """One value per finished seed; of a method without units the base model's."""
        found = []
        for seed in self.lab.setting.seeds:
            result = self.lab.cells.known(f"{kind}/{direction}/{seed}/{name}{suffix}")
            if result is not None and "empty" in result:
                result = self.lab.cells.known(f"tested/{direction}/{self.lab.setting.seeds[0]}/base{suffix}")
            if result is not None and key in result:
                found.append(float(result[key]))
        return found

    def mean(self, directions: str | Iterable[str], name: str, key: str, suffix: str = "") -> float | None:
        """Mean over seeds, and over directions where there are several; None unless each has a finished test."""
        names = [directions] if isinstance(directions, str) else list(directions)
        per_direction = [self.values(direction, name, key, suffix=suffix) for direction in names]
        if not per_direction or not all(per_direction):
            return None
        return float(np.mean([np.mean(values) for values in per_direction]))

    def cost(self, direction: str, name: str, key: str) -> list[float]:
        """A value of the best training, or of the test of what does not train, one per finished seed."""
        found = []
        for seed in self.lab.setting.seeds:
            if name in self.untrained:
                result = self.lab.cells.known(f"tested/{direction}/{seed}/{name}")
            else:
                known = [self.lab.cells.known(cell) for cell in self.lab.trainings(direction, seed, name)]
                done = bool(known) and None not in known
                result = self.lab.cells.result(self.lab.best(direction, seed, name)) if done else None
            if result is not None:
                found.append(0.0 if "empty" in result else float(result.get(key, 0.0)))
        return found

    @cached_property
    def untrained(self) -> set[str]:
        """Methods that no cell trains."""
        names = self.lab.cells.cells
        tested = {name.split("/")[3].partition("@")[0] for name in names if name.startswith("tested/")}
        return tested - {name.split("/")[3] for name in names if name.startswith("tuned/")}

    def gain(self, direction: str, name: str, key: str, suffix: str = "", kind: str = "tested") -> float | None:
        """Mean over seeds of the score above the base model's."""
        base = self.values(direction, "base", key, suffix=suffix if kind == "tested" else "")
        values = self.values(direction, name, key, kind, suffix)
        return float(np.mean(values) - base[0]) if values and base else None

    def stopping_share(self, direction: str, name: str) -> float | None:
        """Share of a gain of whole texts that first lines do not have; None for gains below `LEAST_GAIN`."""
        whole, first = (self.gain(direction, name, f"bleu_{text}") for text in ("whole", "first_line"))
        return None if whole is None or first is None or whole < LEAST_GAIN else 1 - first / whole

    def span_share(self, direction: str, name: str, span: str) -> float | None:
        """Share of a gain that is left where rows act in one span only; None for gains below `LEAST_GAIN`."""
        everywhere = self.gain(direction, name, "bleu_whole")
        there = self.gain(direction, f"{name}/{span}", "bleu_whole", kind="spans")
        return None if everywhere is None or there is None or everywhere < LEAST_GAIN else there / everywhere

    def units(self, direction: str, ticket: str) -> list[float]:
        """Units of a ticket, one number per finished seed; 0 where nothing was selected."""
        cells = [self.lab.ticket_cell(direction, seed, ticket) for seed in self.lab.setting.seeds]
        return [float(result["units"]) for cell in cells if (result := self.lab.cells.known(cell)) is not None]


def shown(value: float | None, digits: int = 1) -> str:
    """A number as tables write it."""
    return MISSING if value is None or np.isnan(value) else f"{value:,.{digits}f}"


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean, smallest and largest."""
    if not values:
        return MISSING
    if len(values) == 1:
        return f"{values[0]:,.{digits}f}"
    return f"{np.mean(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"
