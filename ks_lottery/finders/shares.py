"""Which units each of several processes scores: about the same number of bytes each, in the order of the groups."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ks_lottery.checkpoints.checkpoint import Checkpoint
from ks_lottery.checkpoints.dtypes import ITEM_BYTES
from ks_lottery.units.slab import UnitGroup


@dataclass(frozen=True, slots=True)
class UnitSize:
    """How large a unit of a group is.

    Attributes:
        values: weights in each slab. Groups with equal `values` have units of one kind.
        num_bytes: of all slabs together, in one checkpoint; at least 1.
    """

    values: tuple[int, ...]
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Part:
    """Units `start` to `stop - 1` of a group.

    Attributes:
        group: the group's place among all groups.
        start: first unit.
        stop: the unit after the last one.
    """

    group: int
    start: int
    stop: int

    def of(self, groups: Sequence[UnitGroup]) -> UnitGroup:
        """These units as a group of their own, numbered from 0; the group itself where they are all of it."""
        whole = groups[self.group]
        if self.stop - self.start == whole.num_units:
            return whole
        slabs = (replace(slab, start=slab.start + self.start * slab.width) for slab in whole.slabs)
        return replace(whole, slabs=tuple(slabs), num_units=self.stop - self.start)


def unit_sizes(groups: Sequence[UnitGroup], checkpoint: Checkpoint) -> list[UnitSize]:
    """Sizes of the units of each group.

    Raises:
        UnitError, CheckpointError: if a slab does not fit its parameter, or that is missing.

    Cost:
        Opens the files that hold the groups, and reads their headers.
    """
    sizes = []
    for group in groups:
        values = tuple(slab.weights_per_unit(checkpoint.shape(slab.parameter)) for slab in group.slabs)
        items = (ITEM_BYTES[checkpoint.dtype(slab.parameter)] for slab in group.slabs)
        num_bytes = sum(count * item for count, item in zip(values, items, strict=True))
        sizes.append(UnitSize(values, max(1, num_bytes)))
    return sizes


def share_out(groups: Sequence[UnitGroup], sizes: Sequence[UnitSize], ranks: int) -> list[list[Part]]:
    """Cut all units, in order, into one run per rank.

    Args:
        groups: the groups.
        sizes: of their units.
        ranks: number of runs.

    Returns:
        per rank its parts, in the order of the groups. Each run has the average number of bytes, give or take one unit,
        and at most `ranks - 1` groups are cut. A rank may have no part where there are few units.
    """
    total = sum(group.num_units * size.num_bytes for group, size in zip(groups, sizes, strict=True))
    shares: list[list[Part]] = [[] for _ in range(ranks)]
    passed = 0  # bytes of the groups before this one
    for place, (group, size) in enumerate(zip(groups, sizes, strict=True)):
        # Rank r takes the units that begin in the bytes from total * r / ranks on; rounded up, without a fraction.
        starts = [-((passed * ranks - total * rank) // (size.num_bytes * ranks)) for rank in range(ranks)]
        bounds = [min(max(start, 0), group.num_units) for start in starts] + [group.num_units]
        for share, start, stop in zip(shares, bounds, bounds[1:], strict=False):
            if start < stop:
                share.append(Part(place, start, stop))
        passed += group.num_units * size.num_bytes
    return shares


def with_witnesses(share: Sequence[Part], sizes: Sequence[UnitSize]) -> Iterator[tuple[Part, bool]]:
    """Complete a share so that a finder sees every kind of unit, as it does where it sees all groups.

    Finders may treat units by the sizes that compete: `ks` scores by D where all are of one size, by p otherwise.

    Yields:
        (part, whether it is in the share), in the order of the groups; what is not is the first unit of the first group
        of a kind that the share lacks.
    """
    lacking = {size.values for size in sizes} - {sizes[part.group].values for part in share}
    first = {size.values: place for place, size in reversed(list(enumerate(sizes)))}
    witnesses = [(Part(first[kind], 0, 1), False) for kind in lacking]
    yield from sorted([*((part, True) for part in share), *witnesses], key=lambda entry: entry[0].group)
