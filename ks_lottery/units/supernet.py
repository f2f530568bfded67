"""Heads and neurons together: the parts of a transformer that an architecture may have more or fewer of."""

from dataclasses import dataclass
from typing import ClassVar

from ks_lottery.units.granularity import GRANULARITIES
from ks_lottery.units.heads import Heads
from ks_lottery.units.layout import ModelLayout
from ks_lottery.units.neurons import Neurons
from ks_lottery.units.only import matching, only_option, require_patterns
from ks_lottery.units.slab import UnitGroup


@GRANULARITIES.register("supernet")
@dataclass(frozen=True)
class Supernet:
    """The units of `heads` and those of `neurons`, in one competition.

    A sublayer of which no unit is selected is gone, so that a choice of units is an architecture: layers, and how many
    heads and neurons each has. No weight belongs to two units.

    Units differ in size: a head has many times the weights of a neuron. The share of units that a selector counts is
    therefore not the share of weights.

    Groups: those of `heads`, `layers.3.heads`, then those of `neurons`, `layers.3.neurons`.

    Raises:
        OptionError: if `only` is no tuple of patterns.
    """

    name: ClassVar[str] = "supernet"

    only: tuple[str, ...] = only_option()

    def __post_init__(self) -> None:
        require_patterns(self.only, self.name)

    def groups(self, layout: ModelLayout) -> tuple[UnitGroup, ...]:
        """Unit groups of a model; errors as those of `Heads.groups` and `Neurons.groups`."""
        return matching((*Heads().groups(layout), *Neurons().groups(layout)), self.only, self.name)
