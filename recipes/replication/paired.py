"""Differences between two methods on the same test sentences, with all seeds together."""

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ks_lottery.evaluation.corpus_scores import MetricName, score_from_statistics
from ks_lottery.evaluation.translation import Text
from ks_lottery.stats.intervals import paired_bootstrap_difference
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
    tables = [np.concatenate([_table(lab, cells[side], f"{metric}_{text}") for cells in pairs], 1) for side in (0, 1)]
    score = partial(_mean_score, metric, len(pairs))
    found = paired_bootstrap_difference(tables[0], tables[1], score)
    by_seed = []
    for cells in pairs:
        sums = [_table(lab, cell, f"{metric}_{text}").sum(axis=0) for cell in cells]
        scores = [float(score_from_statistics(metric, total)) for total in sums]
        by_seed.append(scores[0] - scores[1])
    return Paired(found.value, found.low, found.high, tuple(by_seed))


def tested_cell(lab: Laboratory, direction: str, seed: int, name: str) -> str | None:
    """The finished test of a method; that of the base model where the method has no units, or is the base model."""
    method, _, prompt = name.partition("@")
    suffix = f"@{prompt}" if prompt else ""
    base = f"tested/{direction}/{lab.setting.seeds[0]}/base{suffix}"
    cell = base if method == "base" else f"tested/{direction}/{seed}/{name}"
    if cell not in lab.cells.cells or lab.cells.record(cell) is None:
        return None
    if "empty" in lab.cells.result(cell):
        return tested_cell(lab, direction, seed, f"base{suffix}")
    return cell


def _mean_score(metric: MetricName, count: int, sums: NDArray[np.float64]) -> NDArray[np.float64]:
    parts = np.split(sums, count, axis=-1)
    return np.mean([score_from_statistics(metric, part) for part in parts], axis=0)


def _table(lab: Laboratory, cell: str, name: str) -> NDArray[np.int32]:
    return _statistics(str(lab.cells.place(cell)))[name]


@lru_cache(maxsize=512)
def _statistics(folder: str) -> dict[str, np.ndarray]:
    return statistics(Path(folder))
