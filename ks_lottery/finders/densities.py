"""How many units each layer gets: the density schemes of random and sparse training, with exact totals.

counts = layer_counts(groups, layout.shapes, rho=0.05, scheme="erk")
find_ticket(model, units="weights", finder="random", selector=Counts(counts))
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ks_lottery.errors import OptionError
from ks_lottery.ticket.ticket import Ticket
from ks_lottery.units.slab import Slab, UnitGroup

Scheme = Literal["uniform", "erk", "balanced", "pyramidal"]
SCHEMES: tuple[str, ...] = get_args(Scheme)

_BISECTIONS = 100


def layer_counts(
    groups: Sequence[UnitGroup],
    shapes: Mapping[str, Sequence[int]],
    rho: float,
    scheme: Scheme = "erk",
    *,
    allow_empty: bool = False,
) -> dict[str, int]:
    """Units per group, round(rho * units) in all.

    A group is a layer. What a layer cannot take, because it is dense already, goes to the others in the scheme's
    proportions. Fractions are rounded by largest remainder; on a tie the earlier group gets the unit.

    Args:
        groups: the layers.
        shapes: shape of every parameter that the groups touch.
        rho: selected over all units, in (0, 1).
        scheme: uniform: the same density everywhere; erk: density in proportion to the sum of the dimensions over their
            product (of a layer of several slabs: sum of their dimensions over sum of their products); balanced: the
            same number of units in every layer; pyramidal: density a ** i in the i-th block, a the root that gives rho.
            A block is what has the same start of its name up to the first number ("model.layers.3"), counted from 1
            in the order of `groups`; a group without a number in its name is a block of its own.
        allow_empty: whether a layer may get no unit.

    Returns:
        group name to number of units, for the selector `Counts`.

    Raises:
        OptionError: if `rho` is out of range, the scheme unknown, or a layer gets no unit; the message has the smallest
            density at which all get one.

    Source:
        Gadhikar et al. 2023, arXiv 2210.02412 (balanced, pyramidal; there per matrix, which leaves the last matrices of
        a deep transformer empty). Evci et al. 2020, arXiv 1911.11134, appendix (erk, with redistribution).
    """
    if not 0.0 < rho < 1.0:
        raise OptionError(f"rho={rho!r} must lie between 0 and 1; 1 would select everything.")
    if scheme not in SCHEMES:
        raise OptionError(f"Unknown density scheme {scheme!r}; must be one of {', '.join(SCHEMES)}.")
    sizes = np.array([group.num_units for group in groups], dtype=np.int64)
    layers = _Layers(sizes, _proportions(groups, shapes, scheme), _blocks(groups) if scheme == "pyramidal" else None)
    counts = layers.counts(round(rho * int(sizes.sum())))
    if not allow_empty and not counts.all():
        empty = groups[int((counts == 0).argmax())].name
        smallest = layers.smallest_total() / int(sizes.sum())
        raise OptionError(
            f"Density {rho:g} by scheme {scheme!r} leaves no unit in layer {empty!r}. The smallest density that leaves "
            f"no layer empty is {_rounded_up(smallest):g}; or pass allow_empty=True."
        )
    return {group.name: int(count) for group, count in zip(groups, counts, strict=True)}


def even_counts(sizes: Sequence[int], rho: float) -> list[int]:
    """Units of each group, round(rho * all) together, each as near to rho * its size as that allows.

    Args:
        sizes: units of each group.
        rho: share that is kept, from 0 to 1.
    """
    layers = _Layers(np.asarray(sizes, dtype=np.int64), np.ones(len(sizes)), None)
    return [int(count) for count in layers.counts(round(rho * sum(sizes)))]


def counts_like(ticket: Ticket) -> dict[str, int]:
    """Units per group as another ticket has them, for the selector `Counts`: a random ticket of its layer densities."""
    return {name: len(selection) for name, selection in ticket.selections.items()}


class _Layers:
    """Layers to share units among.

    Args:
        sizes: [layers] int64.
        proportions: [layers] float64, to which densities below 1 are proportional.
        blocks: [layers] int64 number of each layer's block from 1, where density is a power of it; else None.
    """

    def __init__(
        self, sizes: NDArray[np.int64], proportions: NDArray[np.float64], blocks: NDArray[np.int64] | None
    ) -> None:
        self.sizes, self.proportions, self.blocks = sizes, proportions, blocks

    def counts(self, total: int) -> NDArray[np.int64]:
        """[layers] int64 with exactly this sum."""
        wanted = np.minimum(self._shares(total) * self.sizes, self.sizes)
        counts = np.floor(wanted).astype(np.int64)
        # Layers that are full come last: theirs is the only remainder that cannot be given.
        order = np.argsort(np.where(counts < self.sizes, counts - wanted, 1.0), kind="stable")
        counts[order[: total - int(counts.sum())]] += 1
        return counts

    def smallest_total(self) -> int:
        """The smallest number of units, as far as bisection finds it, that gives every layer one."""
        low, high = 0, int(self.sizes.sum())
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.counts(middle).all() else (middle, high)
        return high

    def _shares(self, total: int) -> NDArray[np.float64]:
        """[layers] float64 densities that give this sum."""
        if self.blocks is not None:
            return self._powers(self.blocks, total)
        shares = np.ones(len(self.sizes))
        free = np.ones(len(self.sizes), dtype=bool)
        while free.any():
            left = total - int(self.sizes[~free].sum())
            scale = left / float(self.sizes[free] @ self.proportions[free])
            shares[free] = scale * self.proportions[free]
            if not (shares[free] > 1).any():
                break
            free &= shares <= 1
            shares[~free] = 1.0
        return shares

    def _powers(self, blocks: NDArray[np.int64], total: int) -> NDArray[np.float64]:
        """[layers] float64 a ** block, with the root a found by bisection."""
        low, high = 0.0, 1.0
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            low, high = (low, middle) if float(self.sizes @ np.power(middle, blocks)) > total else (middle, high)
        return np.power(low, blocks)


def _proportions(
    groups: Sequence[UnitGroup], shapes: Mapping[str, Sequence[int]], scheme: Scheme
) -> NDArray[np.float64]:
    if scheme == "balanced":
        return np.array([1 / group.num_units for group in groups])
    if scheme != "erk":
        return np.ones(len(groups))
    proportions = []
    for group in groups:
        dimensions = [_dimensions(slab, group.num_units, shapes[slab.parameter]) for slab in group.slabs]
        proportions.append(sum(map(sum, dimensions)) / sum(map(math.prod, dimensions)))
    return np.array(proportions)


def _dimensions(slab: Slab, num_units: int, shape: Sequence[int]) -> list[int]:
    """Dimensions of the part of a parameter that belongs to a group."""
    if slab.dim is None:
        return list(shape[len(slab.lead) :]) or [1]
    owned = num_units * slab.width
    return [owned if axis == slab.dim else shape[axis] for axis in range(len(slab.lead), len(shape))]


def _blocks(groups: Sequence[UnitGroup]) -> NDArray[np.int64]:
    """[groups] int64 number of each group's block, from 1."""
    numbers: dict[tuple[str, ...], int] = {}
    blocks = []
    for group in groups:
        parts = group.name.split(".")
        first = next((place for place, part in enumerate(parts) if part.isdigit()), len(parts) - 1)
        blocks.append(numbers.setdefault(tuple(parts[: first + 1]), len(numbers) + 1))
    return np.array(blocks, dtype=np.int64)


def _rounded_up(share: float) -> float:
    """Three significant digits, not below."""
    unit = 10.0 ** (math.floor(math.log10(share)) - 2)
    return math.ceil(share / unit) * unit
