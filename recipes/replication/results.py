"""Score of one method, mean over its seeds, with the interval over test sentences."""

import numpy as np
from numpy.typing import NDArray

from ks_lottery.evaluation.corpus_scores import MetricName, score_from_statistics
from ks_lottery.evaluation.translation import Text
from ks_lottery.stats.intervals import Interval, bootstrap_interval
from replication.laboratory import Laboratory
from replication.measure import statistics
from replication.paired import tested_cell


def score_interval(
    lab: Laboratory, direction: str, name: str, metric: MetricName = "bleu", text: Text = "whole"
) -> Interval | None:
    """Mean over seeds of a corpus score, 0 to 100.

    The sums of the statistics of each seed are scored, and the scores averaged; a resampled corpus has the same
    sentences for all seeds. The interval covers the choice of test sentences, not that of the training pairs.

    Args:
        lab: of the study.
        direction: its name.
        name: method; one without units is the base model.
        metric: bleu or chrf.
        text: whole or first_line.

    Returns:
        The mean with its 95 % interval; None without a finished test.

    """
    found = [tested_cell(lab, direction, seed, name) for seed in lab.setting.seeds]
    cells = [cell for cell in found if cell is not None]
    if not cells:
        return None
    tables = [statistics(lab.cells.place(cell))[f"{metric}_{text}"] for cell in cells]
    seeds, width = len(tables), tables[0].shape[1]

    def mean_score(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        by_seed = score_from_statistics(metric, sums.reshape(*sums.shape[:-1], seeds, width))
        mean: NDArray[np.float64] = by_seed.mean(axis=-1)
        return mean

    return bootstrap_interval(np.concatenate(tables, axis=1), mean_score)
