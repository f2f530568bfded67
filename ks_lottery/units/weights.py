"""Weights: every single number is a unit."""

import math
from dataclasses import dataclass
from typing import ClassVar

from ks_lottery.units.block import blocks_of, require_live
from ks_lottery.units.granularity import GRANULARITIES
from ks_lottery.units.layout import ModelLayout
from ks_lottery.units.only import matching, only_option, require_patterns
from ks_lottery.units.slab import Slab, UnitGroup


@GRANULARITIES.register("weights")
@dataclass(frozen=True)
class Weights:
    """One unit per single weight, numbered as in the flattened parameter.

    Groups: one per parameter, called as it is. Patterns reach every parameter of the model, embeddings, norms and
    heads included, whatever its architecture; ("*",) takes all of them.

    Raises:
        OptionError: if `only` is no tuple of patterns.
    """

    name: ClassVar[str] = "weights"

    only: tuple[str, ...] = only_option("the matrices in the blocks")

    def __post_init__(self) -> None:
        require_patterns(self.only, self.name)

    def groups(self, layout: ModelLayout) -> tuple[UnitGroup, ...]:
        """Unit groups of a model.

        Raises:
            UnitError: if the model lacks blocks, or `only` matches nothing.
            UnknownNameError: if the architecture is not in the table and `only` is empty.
        """
        if self.only:
            names = list(layout.shapes)
        else:
            blocks = blocks_of(layout)
            names = [name for block in blocks for name in block.parameters if len(layout.shape(name)) > 1]
        groups = [UnitGroup(name, (Slab(name, None),), math.prod(layout.shape(name))) for name in names]
        chosen = matching(groups, self.only, self.name)
        require_live(layout, [group.name for group in chosen])
        return chosen
