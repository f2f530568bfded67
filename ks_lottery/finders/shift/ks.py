"""KS-Lottery: units whose distribution of values shifted, by the two-sample Kolmogorov-Smirnov test."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ks_lottery.checkpoints.pair import paired_chunks
from ks_lottery.errors import UnitError
from ks_lottery.finders.base import FINDERS, Evidence, Shift, UnitScores
from ks_lottery.finders.shift.rows import row_shift, single_row_slab
from ks_lottery.stats.kolmogorov import two_sample_statistic
from ks_lottery.stats.pvalues import log_p_values
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup

_SMALLEST_SAMPLE = 8


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
            size = int(np.prod(evidence.before.shape(slab.parameter)[1:]))
            if size < _SMALLEST_SAMPLE:
                raise UnitError(
                    f"Finder 'ks' compares distributions and needs at least {_SMALLEST_SAMPLE} values per unit, but "
                    f"units of {group.name!r} have {size}. Use finder 'magnitude'."
                )
            heights = np.zeros(group.num_units, dtype=np.int64)
            shift = np.zeros(group.num_units)
            norm = np.zeros(group.num_units)
            changed = np.zeros(group.num_units, dtype=bool)
            for start, old, new in paired_chunks(evidence.before, evidence.after, slab.parameter):
                here = slice(start, start + len(old))
                heights[here] = np.asarray(two_sample_statistic(old, new, name=slab.parameter, first_row=start))
                shift[here], norm[here], changed[here] = row_shift(old, new)
            log_p = log_p_values(heights, size)
            columns = {
                "statistic": heights / size,
                "log_p": log_p,
                "shift": shift,
                "relative_shift": np.divide(shift, norm, out=np.zeros_like(shift), where=norm > 0),
            }
            yield UnitScores(group, score=heights / size, changed=changed, columns=columns, log_p=log_p)
