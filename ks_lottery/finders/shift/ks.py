"""KS-Lottery: units whose distribution of values shifted, by the two-sample Kolmogorov-Smirnov test."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ks_lottery.errors import UnitError
from ks_lottery.finders.base import FINDERS, Evidence, Shift, UnitScores
from ks_lottery.finders.shift.rows import compared_rows, single_row_slab
from ks_lottery.stats.kolmogorov import MIN_VALUES_PER_UNIT
from ks_lottery.stats.pvalues import log_p_values
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup


@FINDERS.register("ks")
@dataclass(frozen=True)
class KolmogorovSmirnov:
    """Score = D, the largest distance between the value distributions of a unit before and after the probe.

    A unit's values are one sample, wherever they stand in it: a permutation of a row is no shift. Before and after are
    paired, so the p-value codes the size of the shift and is not an error rate. D is an exact multiple of 1 / n.

    Columns: `statistic` (D), `log_p`, `shift` (Euclidean norm of after - before), `relative_shift` (that over the norm
    of before).

    Source:
        Yuan et al. 2025 (KS-Lottery), NAACL, arXiv 2402.02801; statistic and p-value with n1 = n2 = row length.
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
            UnitError: if a unit has fewer than 8 values, or a value is NaN or infinite (tensor and row are named).
            CheckpointError: if before and after cannot be compared.

        Cost:
            Streams both tensors once; O(changed units * n log n).
        """
        assert isinstance(evidence, Shift)
        for group in groups:
            slab = single_row_slab(group, self.name)
            size = math.prod(evidence.before.shape(slab.parameter)[1:])
            if size < MIN_VALUES_PER_UNIT:
                raise UnitError(
                    f"Finder 'ks' compares distributions and needs at least {MIN_VALUES_PER_UNIT} values per unit, but "
                    f"units of {group.name!r} have {size}. Use finder 'magnitude'."
                )
            rows = compared_rows(group, slab, evidence, statistic=True)
            assert rows.statistic is not None
            log_p = log_p_values(rows.statistic, size)
            columns = {
                "statistic": rows.statistic / size,
                "log_p": log_p,
                "shift": rows.shift,
                "relative_shift": rows.relative_shift,
            }
            yield UnitScores(group, score=rows.statistic / size, changed=rows.changed, columns=columns, log_p=log_p)
