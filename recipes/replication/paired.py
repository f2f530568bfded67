"""Differences between two methods on the same test sentences, with all seeds together."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ks_lottery.evaluation.corpus_scores import MetricName, score_from_statistics
from ks_lottery.evaluation.translation import Text
from ks_lottery.stats.intervals import Interval, bootstrap_interval, paired_bootstrap_difference
from replication.laboratory import Laboratory
from replication.measure import statistics


@dataclass(frozen=True)
class Paired:
    """Score of one method minus that of another, mean over the seeds that both have.

    Attributes:
        mean: the difference.
        low: of its 95 % bootstrap interval over test sentences; the same sentences are drawn for all seeds.
        high: of the same.
        by_seed: the difference of each seed.
    """

    mean: float
    low: float
    high: float
    by_seed: tuple[float, ...]

    @property
    def shown(self) -> bool:
        """Whether the interval leaves out 0, and all seeds have the sign of the mean."""
        outside = self.low > 0 or self.high < 0
        return outside and all(np.sign(value) == np.sign(self.mean) for value in self.by_seed)

    def __str__(self) -> str:
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


def paired_difference(
    lab: Laboratory, direction: str, one: str, other: str, metric: MetricName = "bleu", text: Text = "whole"
) -> Paired | None:
    """Compare two methods of one direction.

    Args:
        lab: of the study.
        direction: its name.
        one: method, or its cell's last part (`ks@plain`).
        other: what it is compared with; the base model, which has no seed, is compared with every seed.
        metric: bleu or chrf.
        text: whole or first_line.

    Returns:
        None unless both have a finished test of the same seed.
    """
    pairs = [
        (mine, theirs)
        for seed in lab.setting.seeds
        if (mine := tested_cell(lab, direction, seed, one)) and (theirs := tested_cell(lab, direction, seed, other))
    ]
    if not pairs:
        return None
    places = tuple((lab.cells.place(mine), lab.cells.place(theirs)) for mine, theirs in pairs)
    return _compared(places, metric, text)


def score_interval(
    lab: Laboratory, direction: str, name: str, metric: MetricName = "bleu", text: Text = "whole"
) -> Interval | None:
    """Score of one method, mean over its seeds, with its 95 % interval; arguments as of `paired_difference`.

    A resampled corpus has the same sentences for all seeds. The interval covers the choice of test sentences, not that
    of the training pairs.

    Returns:
        None without a finished test.
    """
    cells = [cell for seed in lab.setting.seeds if (cell := tested_cell(lab, direction, seed, name))]
    if not cells:
        return None
    places = [lab.cells.place(cell) for cell in cells]
    return bootstrap_interval(_side_by_side(places, metric, text), partial(_mean_score, metric, len(places)))


def tested_cell(lab: Laboratory, direction: str, seed: int, name: str) -> str | None:
    """The finished test of a method; that of the base model where the method has no units, or is the base model."""
    method, _, prompt = name.partition("@")
    suffix = f"@{prompt}" if prompt else ""
    base = f"tested/{direction}/{lab.setting.seeds[0]}/base{suffix}"
    cell = base if method == "base" else f"tested/{direction}/{seed}/{name}"
    result = lab.cells.known(cell)
    if result is None:
        return None
    if "empty" in result:
        return tested_cell(lab, direction, seed, f"base{suffix}")
    return cell


@cache
def _compared(places: tuple[tuple[Path, Path], ...], metric: MetricName, text: Text) -> Paired:
    """Compare two methods by the run directories of their tests, seed by seed; a page asks for many pairs twice."""
    tables = [_side_by_side(side, metric, text) for side in zip(*places, strict=True)]
    found = paired_bootstrap_difference(tables[0], tables[1], partial(_mean_score, metric, len(places)))
    by_seed = []
    for pair in places:
        scores = [float(score_from_statistics(metric, _table(place, metric, text).sum(axis=0))) for place in pair]
        by_seed.append(scores[0] - scores[1])
    return Paired(found.value, found.low, found.high, tuple(by_seed))


def _mean_score(metric: MetricName, count: int, sums: NDArray[np.float64]) -> NDArray[np.float64]:
    parts = np.split(sums, count, axis=-1)
    return np.mean([score_from_statistics(metric, part) for part in parts], axis=0)


def _side_by_side(places: Sequence[Path], metric: MetricName, text: Text) -> NDArray[np.int32]:
    """[sentences, seeds * m] statistics of the same sentences in several tests."""
    return np.concatenate([_table(place, metric, text) for place in places], axis=1)


def _table(place: Path, metric: MetricName, text: Text) -> NDArray[np.int32]:
    return _statistics(place)[f"{metric}_{text}"]


@lru_cache(maxsize=512)
def _statistics(place: Path) -> dict[str, np.ndarray]:
    return statistics(place)
