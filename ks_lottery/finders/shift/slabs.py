"""Units that are whole rows of one parameter, compared in one pass over both checkpoints."""

import math

import numpy as np

from ks_lottery.checkpoints.pair import paired_chunks
from ks_lottery.errors import UnitError
from ks_lottery.finders.base import Shift
from ks_lottery.stats.comparison import RowComparison, compare_rows
from ks_lottery.units.slab import Slab, UnitGroup


def single_row_slab(group: UnitGroup, finder: str) -> Slab:
    """The slab of units that are whole rows of one parameter.

    Raises:
        UnitError: if the group's units are anything else.
    """
    slab = group.slabs[0]
    if len(group.slabs) != 1 or slab.dim != 0 or slab.width != 1 or slab.start != 0:
        raise UnitError(
            f"Finder {finder!r} scores whole rows of one parameter, but units of group {group.name!r} consist of "
            f"{[(s.parameter, s.dim, s.width, s.start) for s in group.slabs]}. Use units='token_rows'."
        )
    return slab


def compared_rows(group: UnitGroup, slab: Slab, evidence: Shift, statistic: bool) -> RowComparison:
    """Compare every unit of a group, in pieces.

    Args:
        group: units that are rows.
        slab: their one slab.
        evidence: both checkpoints.
        statistic: whether the Kolmogorov-Smirnov statistic is wanted.

    Raises:
        UnitError: if a row is too short for the statistic, or holds NaN or infinity.
        CheckpointError: if before and after cannot be compared.

    Cost:
        Streams both tensors once.
    """
    n = math.prod(evidence.before.shape(slab.parameter)[1:])
    pieces = [
        compare_rows(
            old.reshape(len(old), n),
            new.reshape(len(new), n),
            name=slab.parameter,
            first_row=start,
            statistic=statistic,
        )
        for start, old, new in paired_chunks(evidence.before, evidence.after, slab.parameter)
    ]
    return RowComparison(
        np.concatenate([piece.statistic for piece in pieces if piece.statistic is not None]) if statistic else None,
        np.concatenate([piece.changed_values for piece in pieces]),
        np.concatenate([piece.squared_shift for piece in pieces]),
        np.concatenate([piece.squared_norm for piece in pieces]),
    )
