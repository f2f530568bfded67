"""Matrix rows: unit i is what computes output i of one weight matrix."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ks_lottery.units.block import Block, blocks_of
from ks_lottery.units.granularity import GRANULARITIES
from ks_lottery.units.layout import ModelLayout
from ks_lottery.units.only import matching, only_option, require_patterns
from ks_lottery.units.slab import Slab, UnitGroup


@GRANULARITIES.register("matrix_rows")
@dataclass(frozen=True)
class MatrixRows:
    """One unit per output of every weight matrix in the blocks: the row of weights that computes it, without its bias.

    GPT-2 stores its matrices [inputs, outputs]: there, the row lies in a column. In T5's table of relative positions a
    row is one distance.

    Groups: one per matrix, called as the parameter is ("model.layers.3.mlp.up_proj.weight"); of fused experts one per
    expert, with its number behind ("model.layers.3.mlp.experts.down_proj.5").

    Raises:
        OptionError: if `only` is no tuple of patterns.
    """

    name: ClassVar[str] = "matrix_rows"

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
            group for block in blocks_of(layout) for name in block.live_parameters() for group in _rows_of(block, name)
        ]
        return matching(groups, self.only, self.name)


def _rows_of(block: Block, parameter: str) -> Iterator[UnitGroup]:
    shape = block.layout.shape(parameter)
    if len(shape) == 2:
        axis = block.output_axis
        yield UnitGroup(parameter, (Slab(parameter, axis),), shape[axis])
    elif len(shape) == 3:
        axis = 1 + block.output_axis
        for expert in range(shape[0]):
            yield UnitGroup(f"{parameter}.{expert}", (Slab(parameter, axis, lead=(expert,)),), shape[axis])
