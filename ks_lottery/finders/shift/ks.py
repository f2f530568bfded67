"""KS-Lottery: units whose distribution of values shifted, by the two-sample Kolmogorov-Smirnov test."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ks_lottery.errors import UnitError
from ks_lottery.finders.base import FINDERS, Evidence, Shift, UnitScores
from ks_lottery.finders.shift.slabs import SlabComparison, compared_slabs, total_shift
from ks_lottery.stats.combination import fisher_log_p
from ks_lottery.stats.floats import MIN_VALUES_PER_UNIT
from ks_lottery.stats.pvalues import log_p_values
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup


@FINDERS.register("ks")
@dataclass(frozen=True)
class KolmogorovSmirnov:
    """Score = D, the largest distance between the value distributions of a unit before and after the probe.

    A unit's values are one sample, wherever they stand in it: a permutation of a row is no shift. Before and after are
    paired, so the p-value codes the size of the shift and is not an error rate. D is an exact multiple of 1 / n.

    A unit of several slabs (an attention head: query, key, value and output) is tested in each slab on its own, since
    their values have different scales; Fisher's method combines the p-values, and D is that of the slab with the
    smallest p. docs/units.md measures the alternatives. Slabs with fewer than 8 values in a unit (the bias of one
    neuron) are left out of the test. D of several samples, or of samples of different sizes, cannot be compared between
    units: there the score is -log p instead.

    Columns: `statistic` (D), `log_p`, `shift` (Euclidean norm of after - before, over all slabs), `relative_shift`
    (that over the norm of before).

    Source:
        Yuan et al. 2025 (KS-Lottery), NAACL, arXiv 2402.02801; statistic and p-value with n1 = n2 = row length. Fisher
        1932 for several slabs.
    """

    name: ClassVar[str] = "ks"
    citation: ClassVar[str] = (
        "Yuan et al. KS-Lottery: Finding Certified Lottery Tickets for Multilingual Language Models. NAACL 2025."
    )
    kind: ClassVar[Kind] = "update"
    needs: ClassVar[type[Evidence]] = Shift

    def score(self, groups: Sequence[UnitGroup], evidence: Evidence) -> Iterator[UnitScores]:
        """Score every unit.

        Raises:
            UnitError: if a unit has fewer than 8 values in every slab, or a value is NaN or infinite (tensor and row
                are named).
            CheckpointError: if before and after cannot be compared.

        Cost:
            Streams both tensors once; O(changed units * n log n).
        """
        assert isinstance(evidence, Shift)
        sizes = [_sample_sizes(group, evidence) for group in groups]
        comparable = all(one == sizes[0][:1] for one in sizes)
        for group in groups:
            slabs = compared_slabs(group, evidence, statistic=True)
            shift, relative, changed = total_shift(slabs)
            distance, log_p = _distance_and_log_p(slabs)
            columns = {"statistic": distance, "log_p": log_p, "shift": shift, "relative_shift": relative}
            score = distance if comparable else 0.0 - log_p
            yield UnitScores(group, score=score, changed=changed, columns=columns, log_p=log_p)


def _sample_sizes(group: UnitGroup, evidence: Shift) -> list[int]:
    """Values per unit in each slab; an error if no slab has enough of them."""
    sizes = [slab.weights_per_unit(evidence.before.shape(slab.parameter)) for slab in group.slabs]
    if max(sizes) < MIN_VALUES_PER_UNIT:
        raise UnitError(
            f"Finder 'ks' compares distributions and needs at least {MIN_VALUES_PER_UNIT} values per unit, but units "
            f"of {group.name!r} have {max(sizes)}. Use finder 'magnitude', or larger units such as 'matrix_rows'."
        )
    return sizes


def _distance_and_log_p(slabs: Sequence[SlabComparison]) -> tuple[np.ndarray, np.ndarray]:
    """[units] D of the slab with the smallest p, and [units] natural log of the combined p."""
    distances, log_ps = [], []
    for slab in slabs:
        if slab.rows.statistic is not None:
            distances.append(slab.rows.statistic / slab.values_per_unit)
            log_ps.append(log_p_values(slab.rows.statistic, slab.values_per_unit))
    tested = np.stack(log_ps)
    smallest = tested.argmin(axis=0)
    distance = np.stack(distances)[smallest, np.arange(len(smallest))]
    return distance, fisher_log_p(tested)
