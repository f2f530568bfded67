"""Numbers in, numbers out: tests, p-values, corrections and intervals. Knows no model."""

from ks_lottery.stats.intervals import (
    Difference,
    Interval,
    bootstrap_interval,
    clopper_pearson,
    paired_bootstrap_difference,
)
from ks_lottery.stats.kolmogorov import two_sample_statistic
from ks_lottery.stats.multiplicity import CORRECTIONS, adjust_log_p, rejected
from ks_lottery.stats.pvalues import critical_statistic, log_p_table, log_p_values
from ks_lottery.stats.unequal import log_p_unequal

__all__ = [
    "CORRECTIONS",
    "Difference",
    "Interval",
    "adjust_log_p",
    "bootstrap_interval",
    "clopper_pearson",
    "critical_statistic",
    "log_p_table",
    "log_p_unequal",
    "log_p_values",
    "paired_bootstrap_difference",
    "rejected",
    "two_sample_statistic",
]
