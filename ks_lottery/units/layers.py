"""Layers: a unit is a whole transformer block."""

from dataclasses import dataclass
from typing import ClassVar

from ks_lottery.units.block import blocks_of
from ks_lottery.units.granularity import GRANULARITIES
from ks_lottery.units.layout import ModelLayout
from ks_lottery.units.only import matching, only_option, require_patterns
from ks_lottery.units.slab import Slab, UnitGroup


@GRANULARITIES.register("layers")
@dataclass(frozen=True)
class Layers:
    """One unit per transformer block: every parameter in it, norms and biases included.

    Groups: one per block with a single unit, `layers.3`; in an encoder-decoder model `encoder.layers.3` and
    `decoder.layers.3`. Blocks compete across groups, so select with the scope "global".

    With all weights zero, a block that normalises the inputs or outputs of its sublayers passes on what it gets, as if
    it were not there. One that normalises the sum instead (BERT, RoBERTa, DeBERTa, DistilBERT, BART, Marian) passes on
    zeros. The first block of T5 holds the table of relative positions of all blocks.

    Raises:
        OptionError: if `only` is no tuple of patterns.
    """

    name: ClassVar[str] = "layers"

    only: tuple[str, ...] = only_option()

    def __post_init__(self) -> None:
        require_patterns(self.only, self.name)

    def groups(self, layout: ModelLayout) -> tuple[UnitGroup, ...]:
        """Unit groups of a model.

        Raises:
            UnitError: if the model lacks blocks, or `only` matches nothing.
            UnknownNameError: if the architecture is not in the table.
        """
        groups = [
            UnitGroup(block.label, tuple(_whole(name, layout.shape(name)) for name in block.parameters), 1)
            for block in blocks_of(layout)
        ]
        return matching(groups, self.only, self.name)


def _whole(parameter: str, shape: tuple[int, ...]) -> Slab:
    return Slab(parameter, 0, width=shape[0]) if shape else Slab(parameter, None)
