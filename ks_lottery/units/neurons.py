"""Feed-forward neurons: unit i is what computes and what reads hidden value i."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ks_lottery.errors import UnitError
from ks_lottery.units.block import Block, blocks_of
from ks_lottery.units.granularity import GRANULARITIES
from ks_lottery.units.layout import ModelLayout
from ks_lottery.units.only import matching, only_option, require_patterns
from ks_lottery.units.slab import Slab, UnitGroup
from ks_lottery.units.stack import FeedForward


@GRANULARITIES.register("neurons")
@dataclass(frozen=True)
class Neurons:
    """One unit per feed-forward neuron: its gate and up row, their biases, and its down column.

    The bias of the down projection belongs to no neuron, nor does the router of a mixture of experts.

    Groups: one per block, `layers.3.neurons` (`encoder.` or `decoder.` before it in an encoder-decoder model); one per
    expert in a mixture, `layers.3.experts.5.neurons`.

    A neuron whose weights are all zero adds nothing, and the others are as before.

    Raises:
        OptionError: if `only` is no tuple of patterns.
    """

    name: ClassVar[str] = "neurons"

    only: tuple[str, ...] = only_option()

    def __post_init__(self) -> None:
        require_patterns(self.only, self.name)

    def groups(self, layout: ModelLayout) -> tuple[UnitGroup, ...]:
        """Unit groups of a model.

        Raises:
            UnitError: if the projections do not fit each other, or `only` matches nothing.
            UnknownNameError: if the architecture is not in the table.
        """
        groups = [group for block in blocks_of(layout) for group in _groups(block)]
        return matching(groups, self.only, self.name)


def _groups(block: Block) -> Iterator[UnitGroup]:
    ffn = _feed_forward(block)
    neurons = _count(block, ffn)
    if not ffn.experts:
        yield UnitGroup(f"{block.label}.neurons", tuple(_slabs(block, ffn, neurons, ())), neurons)
        return
    for expert in range(block.layout.shape(block.weight(ffn.output))[0]):
        yield UnitGroup(
            f"{block.label}.experts.{expert}.neurons", tuple(_slabs(block, ffn, neurons, (expert,))), neurons
        )


def _feed_forward(block: Block) -> FeedForward:
    """The form of feed-forward sublayer that this block has."""
    forms = block.stack.feed_forward
    for form in forms:
        if all(map(block.has, (*form.inputs, form.output))):
            return form
    wanted = " or ".join("/".join((*form.inputs, form.output)) for form in forms)
    has = ", ".join(name.removeprefix(block.prefix) for name in block.live_parameters()[:8])
    raise UnitError(
        f"The {block.layout.model_type!r} model has no feed-forward neurons at {block.prefix}{wanted}; the block has "
        f"{has}. Register where this architecture keeps it: ks_lottery.units.architecture.register_architecture."
    )


def _count(block: Block, ffn: FeedForward) -> int:
    """Number of neurons, on which all projections have to agree."""
    _, neurons = block.sizes(ffn.output, ffn.experts)
    for projection in ffn.inputs:
        outputs, _ = block.sizes(projection, ffn.experts)
        if outputs != neurons * (1 + ffn.halves):
            twice = ", whose gates and ups need twice as many" if ffn.halves else ""
            raise UnitError(
                f"{block.weight(projection)!r} has {outputs} outputs, but {block.weight(ffn.output)!r} reads {neurons} "
                f"neurons{twice}. The checkpoint is damaged, or of another architecture than its config.json says."
            )
    return neurons


def _slabs(block: Block, ffn: FeedForward, neurons: int, lead: tuple[int, ...]) -> Iterator[Slab]:
    for projection in ffn.inputs:
        weight, bias = block.weight(projection), block.bias(projection)
        for start in (0, neurons) if ffn.halves else (0,):
            yield Slab(weight, len(lead) + block.output_axis, start=start, lead=lead)
            if bias is not None:
                yield Slab(bias, len(lead), start=start, lead=lead)
    yield Slab(block.weight(ffn.output), len(lead) + 1 - block.output_axis, lead=lead)
