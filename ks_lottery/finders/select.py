"""From scores to a selection: exact counts, deterministic ties, independent of how the scores came about."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from ks_lottery.errors import OptionError, TicketError
from ks_lottery.finders.base import UnitScores
from ks_lottery.stats.multiplicity import CORRECTIONS, rejected
from ks_lottery.stats.topk import Descent

Scope = Literal["global", "group"]
_SCOPES = ("global", "group")
_FEW = 32  # where this part of the scores or less is undecided, it is copied to be looked at further


@runtime_checkable
class Selector(Protocol):
    """A rule that chooses units by their scores; a dataclass whose fields are its options."""

    def select(self, scores: Sequence[UnitScores], candidates: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Choose units.

        Args:
            scores: one entry per group.
            candidates: per group, [num_units] bool; only these units can be chosen.

        Returns:
            per group, sorted int64 indices of the chosen units.
        """
        ...


@dataclass(frozen=True)
class Alpha:
    """Units whose p-value is below `alpha`, the rule of KS-Lottery.

    Before and after values of a unit are paired and not independent: alpha is a threshold on the size of the shift,
    coded as a p-value, and not an error rate.

    Attributes:
        alpha: in (0, 1].
        correction: none (the paper), bonferroni, holm or bh, over the candidates of all groups together.

    Raises:
        OptionError: if an option is out of range.

    Source:
        Yuan et al. 2025 (KS-Lottery): select unit i if p_i < alpha.
    """

    alpha: float = 0.05
    correction: str = "none"

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha <= 1.0:
            raise OptionError(f"Alpha({self.alpha!r}): alpha must be above 0 and at most 1; the paper's is 0.05.")
        if self.correction not in CORRECTIONS:
            raise OptionError(
                f"Alpha(correction={self.correction!r}): must be one of {', '.join(CORRECTIONS)}; the paper's is none."
            )

    def select(self, scores: Sequence[UnitScores], candidates: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Choose units.

        Raises:
            OptionError: if the finder gives no p-values.
            TicketError: if no unit passes; the message has the smallest p.
        """
        log_p = [self._log_p(entry) for entry in scores]
        tested = np.concatenate([values[allowed] for values, allowed in zip(log_p, candidates, strict=True)])
        passed = rejected(tested, self.alpha, self.correction)
        if not passed.any():
            raise TicketError(self._nothing(tested))
        chosen, start = [], 0
        for allowed in candidates:
            units = np.flatnonzero(allowed)
            chosen.append(units[passed[start : start + len(units)]])
            start += len(units)
        return chosen

    @staticmethod
    def _log_p(scores: UnitScores) -> np.ndarray:
        if scores.log_p is None:
            raise OptionError(
                f"Alpha needs p-values, but the finder gives none for group {scores.group.name!r}. "
                "Use TopK or Density, or finder 'ks'."
            )
        return scores.log_p

    def _nothing(self, log_p: np.ndarray) -> str:
        if not len(log_p):
            return "No unit can be selected: before and after are bit-identical in every candidate. Probe for longer?"
        return (
            f"No unit has p < {self.alpha} (correction {self.correction}): the smallest of {len(log_p)} p-values is "
            f"{np.exp(log_p.min()):.3g}. With few values per unit the test has little power: use TopK(k), raise alpha, "
            "or probe for longer or with a larger learning rate."
        )


@dataclass(frozen=True)
class TopK:
    """The `k` units with the largest scores; on equal scores the smaller group, then the smaller unit number wins.

    Attributes:
        k: how many.
        scope: over all groups together, or in each group.

    Raises:
        OptionError: if `k` is below 1 or the scope unknown.
    """

    k: int
    scope: Scope = "global"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise OptionError(f"TopK({self.k!r}): k must be at least 1.")
        if self.scope not in _SCOPES:
            raise OptionError(f"TopK(scope={self.scope!r}): must be one of {', '.join(_SCOPES)}.")

    def select(self, scores: Sequence[UnitScores], candidates: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Choose units.

        Raises:
            TicketError: if fewer than `k` units are candidates.
        """
        return _select_largest(self, scores, candidates)

    def count(self, units: int) -> int:
        """Number of units to choose out of a scope of so many."""
        return self.k


@dataclass(frozen=True)
class Density:
    """The share `rho` of units with the largest scores: round(rho * units), at least 1.

    Attributes:
        rho: selected over all units of the scope, in (0, 1).
        scope: over all groups together, or in each group.

    Raises:
        OptionError: if `rho` is out of range or the scope unknown.
    """

    rho: float
    scope: Scope = "global"

    def __post_init__(self) -> None:
        if not 0.0 < self.rho < 1.0:
            raise OptionError(f"Density({self.rho!r}): rho must lie between 0 and 1; 1 would select everything.")
        if self.scope not in _SCOPES:
            raise OptionError(f"Density(scope={self.scope!r}): must be one of {', '.join(_SCOPES)}.")

    def select(self, scores: Sequence[UnitScores], candidates: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Choose units.

        Raises:
            TicketError: if fewer units are candidates than the density asks for.
        """
        return _select_largest(self, scores, candidates)

    def count(self, units: int) -> int:
        """Number of units to choose out of a scope of so many."""
        return max(1, round(self.rho * units))


@dataclass(frozen=True)
class Counts:
    """In each group exactly so many units, those with the largest scores; on equal scores the smaller unit number wins.

    `layer_counts` gives such counts for a density, `counts_like` those of a ticket.

    Attributes:
        counts: group name to number of units; every group has one.

    Raises:
        OptionError: if a count is no whole number of 0 or more, or all are 0.
    """

    counts: Mapping[str, int]

    def __post_init__(self) -> None:
        wrong = {name: count for name, count in self.counts.items() if not _is_count(count)}
        if wrong or not any(self.counts.values()):
            raise OptionError(
                f"Counts({wrong or dict(self.counts)!r}): each must be a whole number of 0 or more, and one above 0."
            )

    def select(self, scores: Sequence[UnitScores], candidates: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Choose units.

        Raises:
            OptionError: if the groups are not those of the counts.
            TicketError: if fewer units of a group are candidates than its count.
        """
        names = [entry.group.name for entry in scores]
        if set(names) != set(self.counts):
            missing, unknown = sorted(set(names) - set(self.counts)), sorted(set(self.counts) - set(names))
            raise OptionError(
                f"Counts has no number for groups {missing}, and numbers for {unknown}, which are no groups here. Give "
                "every group one, 0 where nothing is wanted."
            )
        return [self._of_group(entry, allowed) for entry, allowed in zip(scores, candidates, strict=True)]

    def _of_group(self, entry: UnitScores, allowed: np.ndarray) -> np.ndarray:
        name = entry.group.name
        try:
            return largest([entry.score], [allowed], self.counts[name], [name])[0]
        except TicketError as error:
            raise TicketError(f"Group {name!r}: {error}") from None


def describe(selector: Selector) -> dict[str, Any]:
    """A selector as JSON values, for a ticket's provenance."""
    options: Mapping[str, Any] = asdict(selector)  # type: ignore[call-overload]
    return {"name": type(selector).__name__, **options}


def _is_count(count: object) -> bool:
    return isinstance(count, int) and not isinstance(count, bool) and count >= 0


def _select_largest(
    selector: TopK | Density, scores: Sequence[UnitScores], candidates: Sequence[np.ndarray]
) -> list[np.ndarray]:
    values, names = [entry.score for entry in scores], [entry.group.name for entry in scores]
    if selector.scope == "global":
        return largest(values, candidates, selector.count(sum(len(one) for one in values)), names)
    return [
        largest([one], [allowed], selector.count(len(one)), [name])[0]
        for one, allowed, name in zip(values, candidates, names, strict=True)
    ]


def largest(
    values: Sequence[np.ndarray],
    candidates: Sequence[np.ndarray | None],
    k: int,
    names: Sequence[str] = (),
) -> list[np.ndarray]:
    """Exactly k candidates by score descending, then position ascending.

    Args:
        values: per group, [num_units] scores; float32 and float64 are not copied.
        candidates: per group, [num_units] bool; only these units can be chosen. None where all can.
        k: how many.
        names: of the groups, for messages; their numbers if empty.

    Returns:
        per group, sorted int64 indices.

    Raises:
        TicketError: if fewer than `k` units are candidates.
        UnitError: if the score of a candidate is NaN.

    Cost:
        Five passes over the scores as a rule, seven at most; a tenth of their bytes beside the result.
    """
    groups = list(zip(values, candidates, names or [str(number) for number in range(len(values))], strict=True))
    if k == 0:
        return [np.zeros(0, dtype=np.int64) for _ in groups]
    descent, pool = Descent(k), groups
    while not descent.settled:
        for one, allowed, name in pool:
            descent.count(one, allowed, name)
        descent.narrow()
        if descent.total < k:
            raise TicketError(
                f"{k} units are asked for, but only {descent.total} of {sum(map(len, values))} can be selected (units "
                "that did not change or that are no candidates are left out). Ask for fewer."
            )
        if pool is groups and descent.inside <= descent.total // _FEW:
            pool = [(one[descent.within(one, allowed)], None, name) for one, allowed, name in groups]
    chosen, left = [], descent.left
    for one, allowed, _ in groups:
        indices, tied = descent.above(one, allowed, left)
        chosen.append(indices)
        left -= tied
    return chosen
