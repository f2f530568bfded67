"""Removing units for good: what is left of each parameter, and what the configuration says of the smaller model."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ks_lottery.errors import UnitError
from ks_lottery.units.block import Block, blocks_of
from ks_lottery.units.granularity import granularity
from ks_lottery.units.layout import ModelLayout
from ks_lottery.units.slab import UnitGroup

Indices = NDArray[np.int64]

_REMOVABLE = ("heads", "neurons", "layers")
_COUPLED = "has no key for the width of a head, which is the hidden size divided by the number of heads"
_FIXED = "has no key for the number of neurons, which is four times the hidden size"
_SHARED_NORM = (
    "cannot express it: one norm stands before all heads of a layer together, and before fewer heads it is another norm"
)
_SUMS = (
    "cannot express it: a block normalises the sum of what it gets and what it adds, so that one of zeros passes on "
    "zeros, and not what it got"
)
_PER_LAYER = ("layer_types", "no_rope_layers")
# Model type: (key, the value with which a block of zeros passes on what it gets to blocks that stay as they are).
_ONLY_IF: dict[str, tuple[str, bool]] = {
    "opt": ("do_layer_norm_before", True),
    "bloom": ("apply_residual_connection_post_layernorm", False),
    "gpt2": ("scale_attn_by_inverse_layer_idx", False),
}


@dataclass(frozen=True, slots=True)
class ConfigKeys:
    """What the configuration of an architecture says of the sizes of its blocks.

    Attributes:
        neurons: key of the number of neurons, by the name of the stack ("" where a model has one).
        layers: key of the number of blocks, by the name of the stack.
        refused: granularity to why the configuration cannot express a model with fewer of its units; "its
            configuration" stands before it.
    """

    neurons: Mapping[str, str] = field(default_factory=lambda: {"": "intermediate_size"})
    layers: Mapping[str, str] = field(default_factory=lambda: {"": "num_hidden_layers"})
    refused: Mapping[str, str] = field(default_factory=dict)


def _ends(key: str) -> dict[str, str]:
    return {end: key.format(end) for end in ("encoder", "decoder")}


_BERT = ConfigKeys(refused={"heads": _COUPLED, "layers": _SUMS})
_MBART = ConfigKeys(_ends("{}_ffn_dim"), _ends("{}_layers"), {"heads": _COUPLED})
_BART = ConfigKeys(_MBART.neurons, _MBART.layers, {"heads": _COUPLED, "layers": _SUMS})
_T5 = ConfigKeys(_ends("d_ff"), {"encoder": "num_layers", "decoder": "num_decoder_layers"})
_KEYS: dict[str, ConfigKeys] = {
    **dict.fromkeys(
        (
            "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "gemma3", "smollm3", "mixtral",
            "phi3", "vit",
        ),
        ConfigKeys(),
    ),
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "deberta-v2"), _BERT),
    **dict.fromkeys(("bart", "marian"), _BART),
    **dict.fromkeys(("t5", "mt5"), _T5),
    "mbart": _MBART,
    "olmo2": ConfigKeys(refused={"heads": _SHARED_NORM}),
    "gpt_neox": ConfigKeys(refused={"heads": _COUPLED}),
    "opt": ConfigKeys({"": "ffn_dim"}, refused={"heads": _COUPLED}),
    "gpt2": ConfigKeys({"": "n_inner"}, {"": "n_layer"}, {"heads": _COUPLED}),
    "bloom": ConfigKeys({}, {"": "n_layer"}, {"heads": _COUPLED, "neurons": _FIXED}),
    "distilbert": ConfigKeys({"": "hidden_dim"}, {"": "n_layers"}, {"heads": _COUPLED, "layers": _SUMS}),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cut:
    """What is left of a parameter.

    Attributes:
        dim: dimension along which it shrinks.
        kept: sorted indices along `dim`: one array; one for each index of dimension 0 where the experts of a mixture
            keep different neurons, equally many.
    """

    dim: int
    kept: tuple[Indices, ...]

    def shape(self, before: Sequence[int]) -> tuple[int, ...]:
        """Shape of what is left of a parameter of shape `before`."""
        return (*before[: self.dim], len(self.kept[0]), *before[self.dim + 1 :])


@dataclass(frozen=True, slots=True)
class Removal:
    """How a smaller model comes out of a larger one.

    Attributes:
        names: parameter to what it is called in the smaller model; one that is not there is gone.
        cuts: what is left of the parameters that shrink.
        config: keys of the text configuration, as transformers' class spells them, to their new values.
    """

    names: Mapping[str, str]
    cuts: Mapping[str, Cut]
    config: Mapping[str, Any]


def removal(layout: ModelLayout, units: str, kept: Mapping[str, Indices]) -> Removal:
    """Plan a model without the units that are not kept, which computes what the model with zeros in them does.

    Args:
        layout: the model.
        units: "heads", "neurons" or "layers".
        kept: group name to sorted units that stay; a group that is not there keeps all.

    Raises:
        UnitError: if the architecture's configuration cannot express the smaller model; the message says why, and how
            many units each layer keeps if the reason is that they differ.
        UnknownNameError: if the architecture is not in the table of `units.architecture`.
    """
    if units not in _REMOVABLE:
        raise UnitError(
            f"units={units!r}: only heads, neurons and layers can be removed; of other units a model needs the "
            f"places, be they zero. {_ZEROS}"
        )
    groups = tuple(granularity(units).groups(layout))
    left = {group.name: kept.get(group.name, np.arange(group.num_units)) for group in groups}
    if all(len(left[group.name]) == group.num_units for group in groups):
        return Removal({name: name for name in layout.shapes}, {}, {})
    keys = _config_keys(layout, units)
    if units == "layers":
        return _without_layers(layout, keys, left)
    cuts = _cuts(layout, groups, left)
    if units == "heads":
        config = _heads_config(layout, groups, left)
        cuts |= _position_cuts(layout, groups, left)
    else:
        config = {
            key: _equal_count(layout, key, [group for group in groups if keys.neurons[_stack(group)] == key], left)
            for key in dict.fromkeys(keys.neurons[_stack(group)] for group in groups)
        }
    return Removal({name: name for name in layout.shapes}, cuts, config)


_ZEROS = "To keep the shapes and write zeros instead, which any ticket allows: zero_checkpoint(source, ticket, folder)."


def _config_keys(layout: ModelLayout, units: str) -> ConfigKeys:
    model = layout.model_type
    if model not in _KEYS:
        raise UnitError(
            f"Which sizes the configuration of a {model!r} model can express is not known here; it is for "
            f"{', '.join(sorted(_KEYS))}. {_ZEROS}"
        )
    reason = _KEYS[model].refused.get(units)
    if reason is not None:
        raise UnitError(f"A {model!r} model cannot have fewer {units}: its configuration {reason}. {_ZEROS}")
    return _KEYS[model]


def _equal_count(layout: ModelLayout, key: str, groups: Iterable[UnitGroup], left: Mapping[str, Indices]) -> int:
    """How many units each of the groups keeps."""
    counts = {group.name: len(left[group.name]) for group in groups}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{group.name} {counts[group.name]} of {group.num_units}" for group in groups)
        raise UnitError(
            f"The configuration of a {layout.model_type!r} model has one {key!r} for all layers, but they keep "
            f"different numbers of units: {listed}. Select equally many in each, with TopK(k, scope='group') or "
            f"Density(rho, scope='group'). {_ZEROS}"
        )
    (count,) = set(counts.values())
    if not count:
        raise UnitError(
            f"Nothing would be left: {next(iter(counts))} and all that share {key!r} with it keep no unit. Select one "
            f"at least in each. {_ZEROS}"
        )
    return count


def _cuts(layout: ModelLayout, groups: Iterable[UnitGroup], left: Mapping[str, Indices]) -> dict[str, Cut]:
    gone: dict[str, dict[tuple[int, ...], list[Indices]]] = {}
    dims: dict[str, int] = {}
    for group in groups:
        units = np.setdiff1d(np.arange(group.num_units), left[group.name])
        for slab in group.slabs:
            assert slab.dim is not None
            dims[slab.parameter] = slab.dim
            gone.setdefault(slab.parameter, {}).setdefault(slab.lead, []).append(slab.indices(units))
    return {
        parameter: Cut(
            dim,
            tuple(
                np.delete(np.arange(layout.shape(parameter)[dim]), np.concatenate(indices))
                for _, indices in sorted(gone[parameter].items())
            ),
        )
        for parameter, dim in dims.items()
    }


def _heads_config(layout: ModelLayout, groups: Sequence[UnitGroup], left: Mapping[str, Indices]) -> dict[str, Any]:
    config, attention = layout.config(), blocks_of(layout)[0].stack.attention[0]
    units = _equal_count(layout, attention.heads, groups, left)
    queries = config[attention.heads] // groups[0].num_units
    changes = {attention.heads: units * queries, attention.head_dim: groups[0].slabs[-1].width // queries}
    return changes | ({attention.kv_heads: units} if attention.kv_heads in config else {})


def _position_cuts(layout: ModelLayout, groups: Sequence[UnitGroup], left: Mapping[str, Indices]) -> dict[str, Cut]:
    """What is left of T5's tables of relative positions, each with a column for every head of all layers of a stack."""
    cuts = {}
    for table in (name for name in layout.shapes if name.endswith(".relative_attention_bias.weight")):
        stack = table.partition(".")[0]
        readers = [group for group in groups if _stack(group) == stack and group.name.endswith(".heads")]
        kept = left[readers[0].name]
        for group in readers:
            if not np.array_equal(left[group.name], kept):
                raise UnitError(
                    f"All layers of the {stack} read one table of relative positions, {table!r}, with a column for "
                    f"each head, but {readers[0].name} keeps the heads {kept.tolist()} and {group.name} keeps "
                    f"{left[group.name].tolist()}. Select the same heads in all of them. {_ZEROS}"
                )
        cuts[table] = Cut(1, (kept,))
    return cuts


def _without_layers(layout: ModelLayout, keys: ConfigKeys, left: Mapping[str, Indices]) -> Removal:
    config = layout.config()
    key, needed = _ONLY_IF.get(layout.model_type, ("", True))
    if key and config.get(key, needed) != needed:
        raise UnitError(
            f"With {key}={not needed}, the other layers of a {layout.model_type!r} model compute something else where "
            f"one is not there than where one is of zeros. {_ZEROS}"
        )
    stacks: dict[str, list[Block]] = {}
    for block in blocks_of(layout):
        stacks.setdefault(block.stack.name, []).append(block)
    names = {name: name for name in layout.shapes}
    changes: dict[str, Any] = {}
    for stack, blocks in stacks.items():
        numbers = [number for number, block in enumerate(blocks) if len(left[block.label])]
        _require_layers(layout, stack, blocks, numbers, config.get(keys.layers[stack]))
        changes[keys.layers[stack]] = len(numbers)
        changes |= {
            key: [config[key][number] for number in numbers] for key in _PER_LAYER if isinstance(config.get(key), list)
        }
        place = blocks[0].prefix.removesuffix("0.")
        for number, block in enumerate(blocks):
            for name in block.parameters:
                del names[name]
                if number in numbers:
                    names[name] = f"{place}{numbers.index(number)}.{name.removeprefix(block.prefix)}"
    return Removal(names, {}, changes)


def _require_layers(
    layout: ModelLayout, stack: str, blocks: Sequence[Block], numbers: Sequence[int], said: int | None
) -> None:
    what = f"the {stack}" if stack else "the model"
    if said != len(blocks):
        raise UnitError(
            f"The checkpoint holds {len(blocks)} layers of {what}, but its configuration says {said}. Use the "
            "config.json that it was saved with."
        )
    if not numbers:
        raise UnitError(f"Nothing would be left: no layer of {what} is kept, of {len(blocks)}. Select one at least.")
    table = next((name for name in blocks[0].parameters if "relative_attention_bias" in name), None)
    if table is not None and numbers[0] != 0:
        raise UnitError(
            f"The first layer of {what} holds the table of relative positions of all of them, {table!r}, so it cannot "
            f"be removed: only the layers {list(numbers)} are kept. Select it too. {_ZEROS}"
        )


def _stack(group: UnitGroup) -> str:
    """Name of the stack that a group of units is in: "", "encoder" or "decoder"."""
    return group.name.partition("layers.")[0].rstrip(".")
