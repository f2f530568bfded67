"""Masks of exactly so many of the largest numbers, made again after every step at the cost of a few passes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ks_lottery.errors import OptionError, UnitError
from ks_lottery.finders.densities import even_counts
from ks_lottery.finders.select import Scope

if TYPE_CHECKING:
    from torch import Tensor


class LargestMask:
    """The mask of the `count` largest of some numbers; on equal ones those that come first.

    From one call to the next the numbers change little, and with them the smallest one that is kept. So it is looked
    for in a narrow band around the last one; where it is not there, among all.

    Args:
        count: how many are kept, from 0 to all.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._band: tuple[float, float] | None = None

    def __call__(self, values: "Tensor") -> "Tensor":
        """Make the mask.

        Args:
            values: [n] float, n at least `count`.

        Returns:
            [n] bool, True `count` times.

        Raises:
            UnitError: if a number is NaN.

        Cost:
            A selection of the k-th largest at first; then three passes, as long as the numbers move little.
        """
        import torch

        if self._count in (0, len(values)):
            return torch.full_like(values, bool(self._count), dtype=torch.bool)
        threshold = self._within_band(values)
        if threshold is None:
            if values.isnan().any():
                raise UnitError(
                    f"The score of unit {int(values.isnan().int().argmax())} is NaN: the mask's training diverged. "
                    "Lower the learning rate."
                )
            threshold = float(values.kthvalue(len(values) - self._count + 1).values)
        mask = values >= threshold
        surplus = int(mask.count_nonzero()) - self._count
        if surplus:
            mask[(values == threshold).nonzero()[-surplus:, 0]] = False
        self._follow(threshold)
        return mask

    def _within_band(self, values: "Tensor") -> float | None:
        """The smallest number that is kept, if it lies in the band."""
        if self._band is None:
            return None
        low, high = self._band
        larger = values > high
        above = int(larger.count_nonzero())
        inside = values[(values >= low).logical_and_(larger.logical_not_())]
        if not above < self._count <= above + len(inside):
            return None
        return float(inside.kthvalue(len(inside) - (self._count - above) + 1).values)

    def _follow(self, threshold: float) -> None:
        """Lay the band of the next call around this threshold: twice as wide as the last move, or 2 % of it."""
        last = threshold if self._band is None else (self._band[0] + self._band[1]) / 2
        half = max(2 * abs(threshold - last), 2e-2 * abs(threshold), 1e-12)
        self._band = threshold - half, threshold + half


class KeptUnits:
    """Masks that keep a density of the units, over all groups together or in each.

    Args:
        sizes: units of each group.
        density: share that is kept.
        scope: "global": round(density * all) of the largest numbers; "group": the same share of each group, as near as
            the same sum allows, except where every group is a single unit, as layers are: those compete.

    Raises:
        OptionError: if that is no unit at all, or every unit.
    """

    def __init__(self, sizes: Sequence[int], density: float, scope: Scope) -> None:
        self._sizes = [sum(sizes)] if scope == "global" or max(sizes) == 1 else list(sizes)
        self.counts = even_counts(self._sizes, density)
        if not 0 < sum(self.counts) < sum(sizes):
            raise OptionError(
                f"density={density} of {sum(sizes)} units keeps {sum(self.counts)}, and a mask of none or of all says "
                "nothing. Choose another density, or a finer granularity."
            )
        self._masks = [LargestMask(count) for count in self.counts]

    def __call__(self, values: "Tensor") -> "Tensor":
        """[units] bool mask of [units] float numbers; errors as `LargestMask`."""
        import torch

        parts = values.split(self._sizes)
        return torch.cat([keep(part) for keep, part in zip(self._masks, parts, strict=True)])
