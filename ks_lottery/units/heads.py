"""Attention heads: unit i is key/value head i with every query head that reads it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ks_lottery.errors import UnitError
from ks_lottery.units.block import Block, blocks_of
from ks_lottery.units.granularity import GRANULARITIES
from ks_lottery.units.layout import ModelLayout
from ks_lottery.units.only import matching, only_option, require_patterns
from ks_lottery.units.slab import Slab, UnitGroup
from ks_lottery.units.stack import Attention


@GRANULARITIES.register("heads")
@dataclass(frozen=True)
class Heads:
    """One unit per key/value head: its query, key and value outputs, and its inputs of the output projection.

    Where several query heads share a key/value head (grouped-query attention) they are one unit, since none of them
    works without it. Biases of query, key and value belong to the heads. The bias of the output projection, norms that
    all heads share and T5's table of relative positions belong to no head.

    Groups: one per attention sublayer: `layers.3.heads`; in an encoder-decoder model `encoder.layers.3.heads`,
    `decoder.layers.3.heads` and `decoder.layers.3.cross_heads`. Slabs: query, key, value (or the one matrix that holds
    them), each with its bias, then the output projection.

    A unit whose weights are all zero adds nothing, and the other heads are as before; except in OLMo 2, where a norm
    over all heads together stands before them.

    Raises:
        OptionError: if `only` is no tuple of patterns.
    """

    name: ClassVar[str] = "heads"

    only: tuple[str, ...] = only_option()

    def __post_init__(self) -> None:
        require_patterns(self.only, self.name)

    def groups(self, layout: ModelLayout) -> tuple[UnitGroup, ...]:
        """Unit groups of a model.

        Raises:
            UnitError: if the configuration's numbers of heads do not fit the shapes, or `only` matches nothing.
            UnknownNameError: if the architecture is not in the table.
        """
        config = layout.config()
        groups = [
            _group(block, attention, config) for block in blocks_of(layout) for attention in block.stack.attention
        ]
        return matching(groups, self.only, self.name)


def _group(block: Block, attention: Attention, config: Mapping[str, Any]) -> UnitGroup:
    sizes = _HeadSizes.of(block, attention, config)
    slabs = [*_projections(block, attention, sizes), *_beside(block, attention, sizes)]
    out = Slab(block.weight(attention.output), 1 - block.output_axis, sizes.queries_per_unit * sizes.head_dim)
    return UnitGroup(f"{block.label}.{attention.group}", (*slabs, out), sizes.kv_heads)


@dataclass(frozen=True, slots=True)
class _HeadSizes:
    """How many heads an attention sublayer has, and how wide they are."""

    heads: int
    kv_heads: int
    head_dim: int

    @property
    def queries_per_unit(self) -> int:
        return self.heads // self.kv_heads

    @classmethod
    def of(cls, block: Block, attention: Attention, config: Mapping[str, Any]) -> "_HeadSizes":
        """Read the numbers of heads off the configuration and check them against the output projection."""
        model = block.layout.model_type
        heads = config.get(attention.heads)
        if not heads:
            raise UnitError(
                f"The layout of this {model!r} model does not say how many heads it has: its config holds no "
                f"{attention.heads!r}. Open the model with open_checkpoint, or give ModelLayout its config."
            )
        kv_heads = config.get(attention.kv_heads) or heads
        if heads % kv_heads:
            raise UnitError(
                f"This {model!r} model's {attention.heads}={heads} query heads do not divide among its "
                f"{attention.kv_heads}={kv_heads} key/value heads. Repair its config.json."
            )
        _, width = block.sizes(attention.output)
        head_dim = config.get(attention.head_dim) or width // heads
        if heads * head_dim != width:
            raise UnitError(
                f"{block.weight(attention.output)!r} reads {width} values, which are not "
                f"{attention.heads}={heads} heads of {head_dim}. Repair config.json, or use the checkpoint that it "
                "belongs to."
            )
        return cls(heads, kv_heads, head_dim)


def _projections(block: Block, attention: Attention, sizes: _HeadSizes) -> Iterator[Slab]:
    """Slabs of query, key and value, in one matrix or three."""
    queries, one = sizes.heads * sizes.head_dim, sizes.head_dim
    keys, per_unit = sizes.kv_heads * one, sizes.queries_per_unit * one
    if attention.query != attention.key:
        yield from _outputs(block, attention.query, per_unit, 0, queries)
        yield from _outputs(block, attention.key, one, 0, keys)
        yield from _outputs(block, attention.value, one, 0, keys)
    elif attention.interleaved:
        yield from _outputs(block, attention.query, per_unit + 2 * one, 0, queries + 2 * keys)
    else:
        for start, width in ((0, per_unit), (queries, one), (queries + keys, one)):
            yield from _outputs(block, attention.query, width, start, queries + 2 * keys)


def _outputs(block: Block, projection: str, width: int, start: int, expected: int) -> Iterator[Slab]:
    """Slabs of a projection whose outputs are heads: its matrix and its bias."""
    outputs, _ = block.sizes(projection)
    weight, bias = block.weight(projection), block.bias(projection)
    if outputs != expected:
        raise UnitError(
            f"{weight!r} of shape {block.layout.shape(weight)} has {outputs} outputs, but the heads of this "
            f"{block.layout.model_type!r} model need {expected}. Its config.json counts other heads than its weights "
            "have: use the checkpoint that it belongs to."
        )
    yield Slab(weight, block.output_axis, width, start)
    if bias is not None:
        yield Slab(bias, 0, width, start)


def _beside(block: Block, attention: Attention, sizes: _HeadSizes) -> Iterator[Slab]:
    """Slabs of further parameters with a slice for each head, where the model has them."""
    per_unit = sizes.queries_per_unit * sizes.head_dim
    for names, width in ((attention.beside_query, per_unit), (attention.beside_key, sizes.head_dim)):
        for name in filter(block.has, names):
            for parameter in filter(None, (block.weight(name), block.bias(name))):
                rows = block.layout.shape(parameter)[0]
                if rows != width * sizes.kv_heads:
                    raise UnitError(
                        f"{parameter!r} has {rows} rows, but {sizes.kv_heads} units of {width} need "
                        f"{width * sizes.kv_heads}. Use the checkpoint that this config.json belongs to."
                    )
                yield Slab(parameter, 0, width)
