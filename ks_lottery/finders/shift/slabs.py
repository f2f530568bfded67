"""The units of a group, compared slab by slab: what every finder of this family looks at."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from ks_lottery.checkpoints.checkpoint import Checkpoint, Rows
from ks_lottery.checkpoints.pair import require_comparable, together
from ks_lottery.finders.base import Shift
from ks_lottery.stats.comparison import RowComparison, compare_rows, joined
from ks_lottery.stats.floats import MIN_VALUES_PER_UNIT, FloatBits
from ks_lottery.stats.pvalues import critical_statistic
from ks_lottery.units.slab import Slab, UnitGroup

_PIECE_VALUES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class SlabComparison:
    """The units of one slab, before and after.

    Attributes:
        values_per_unit: values of the slab that one unit owns.
        rows: one row per unit; without a statistic where it is not wanted, or where units have fewer than 8 values.
    """

    values_per_unit: int
    rows: RowComparison


def compared_slabs(group: UnitGroup, evidence: Shift, statistic: bool) -> list[SlabComparison]:
    """Compare every unit of a group in each of its slabs.

    Args:
        group: the units.
        evidence: both checkpoints.
        statistic: whether the Kolmogorov-Smirnov statistic is wanted.

    Returns:
        one entry per slab, in the group's order.

    Raises:
        UnitError: if a value is NaN or infinite.
        CheckpointError: if before and after cannot be compared.

    Cost:
        One pass over each slab, in pieces of 4 million values or one unit, whichever is more.
    """
    return [_compared(slab, group, evidence, statistic) for slab in group.slabs]


def total_shift(slabs: list[SlabComparison]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How far each unit moved over all its slabs.

    Returns:
        [units] float64 Euclidean norm of after - before, [units] float64 that over the norm of before (0 where before
        is zero), [units] bool whether any bit differs.
    """
    shift = np.sqrt(sum(slab.rows.squared_shift for slab in slabs))
    norm = np.sqrt(sum(slab.rows.squared_norm for slab in slabs))
    relative = np.divide(shift, norm, out=np.zeros_like(norm), where=norm > 0)
    return shift, relative, np.logical_or.reduce([slab.rows.changed for slab in slabs])


def paired_units(slab: Slab, num_units: int, evidence: Shift) -> Iterator[tuple[int, Rows, Rows]]:
    """Walk over the units of a slab in both checkpoints; a progress bar shows when it takes longer than two seconds.

    Yields:
        (number of the first unit, [units, values] before, [units, values] after), values in the order of `Slab.take`:
        both bits, or both tensors on one GPU. They are valid until the next step, and to be read only.

    Raises:
        CheckpointError: if before and after cannot be compared.
    """
    sides = (evidence.before, evidence.after)
    require_comparable(*sides, slab.parameter)
    per_unit = slab.weights_per_unit(evidence.before.shape(slab.parameter))
    step = max(1, _PIECE_VALUES // per_unit)
    with tqdm(total=num_units, desc=slab.parameter, unit="unit", delay=2, leave=False) as bar:
        for first in range(0, num_units, step):
            stop = min(first + step, num_units)
            yield first, *together(*(_taken(side, slab, first, stop) for side in sides))
            for side in sides:
                side.release(slab.parameter)
            bar.update(stop - first)


def _taken(checkpoint: Checkpoint, slab: Slab, first: int, stop: int) -> Rows:
    """[stop - first, values] of some units: a view where the units are whole rows, else a copy."""
    if slab.dim == 0 and not slab.lead:
        rows = checkpoint.piece(slab.parameter, slab.start + first * slab.width, slab.start + stop * slab.width)
        return rows.reshape(stop - first, -1)
    whole = checkpoint.piece(slab.parameter, 0, None)
    units = np.arange(first, stop)
    if isinstance(whole, FloatBits):
        return FloatBits(slab.take(whole.array, units), whole.dtype)
    return slab.take(whole, units)


def _compared(slab: Slab, group: UnitGroup, evidence: Shift, statistic: bool) -> SlabComparison:
    n = slab.weights_per_unit(evidence.before.shape(slab.parameter))
    wanted = statistic and n >= MIN_VALUES_PER_UNIT
    # The p-value of several slabs can be small though none of theirs is.
    settles = wanted and len(group.slabs) == 1
    at_least = critical_statistic(n, evidence.level) if evidence.level is not None and settles else 0
    pieces = [
        compare_rows(old, new, name=slab.parameter, first_row=first, statistic=wanted, at_least=at_least)
        for first, old, new in paired_units(slab, group.num_units, evidence)
    ]
    return SlabComparison(n, joined(pieces))
