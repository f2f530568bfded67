"""The values of a trained ticket, read off a model: what every export writes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from peft import PeftModel
from peft.utils.other import AuxiliaryTrainingWrapper, _get_module_names_tied_with_embedding
from torch import Tensor, nn

from ks_lottery.adapter.layer import RowLayer
from ks_lottery.adapter.linear import LinearLayer
from ks_lottery.adapter.overlap import columns_outside
from ks_lottery.adapter.parts import BIAS, COLUMNS, ENTRIES, ROWS, PartKind, PartLayer, tuned_part
from ks_lottery.adapter.rows import RowChange, add_changes, union_index, wide_dtype
from ks_lottery.checkpoints.live_model import full_shape

PEFT_PREFIX = "base_model.model."

Form = Literal["embedding", "linear", "conv1d", "vectors"]


@dataclass(frozen=True)
class TunedPart:
    """What is changed along one dimension of one parameter.

    Attributes:
        kind: of which parameter, along which dimension.
        index: [k]; which slices or single values.
        pretrained: [k, ...] their pretrained values, in the dtype of the parameter, slices along the first dimension.
        changes: what is added to them, of one or more adapters.
    """

    kind: PartKind
    index: Tensor
    pretrained: Tensor
    changes: tuple[RowChange, ...]

    @torch.no_grad()
    def values(self) -> Tensor:
        """[k, ...] tuned values in float32 or wider, on the CPU; rounded to the base dtype they are the merged ones."""
        return tuned_part(self.pretrained, self.index, self.changes).cpu().contiguous()

    @torch.no_grad()
    def deltas(self) -> Tensor:
        """[k, ...] what merging adds to the pretrained values, in float32 or wider, on the CPU."""
        wide = wide_dtype(self.pretrained.dtype)
        if self.pretrained.dtype == wide:
            return add_changes(torch.zeros_like(self.pretrained), self.index, self.changes).cpu().contiguous()
        pretrained = self.pretrained.cpu()
        return self.values().to(pretrained.dtype).to(wide) - pretrained.to(wide)


@dataclass(frozen=True)
class TunedModule:
    """The changed parts of one module.

    Attributes:
        name: in the base model ("model.embed_tokens").
        form: what it is; "conv1d" is GPT-2's linear layer, which stores [inputs, outputs]; "vectors" is a norm.
        shape: of its weight.
        parts: what is changed.
        rows_alone: whether it is an embedding or an output head of which only rows are changed, which PEFT's token
            layer can hold.
        tied_modules: names of the other modules that share its matrix.
        followed_by_peft: names of the modules that PEFT's token layer would tie to this one.
        biased: those of the module and its `tied_modules` that add a bias to their output.
        namesakes: names of other modules that end with `name`; PEFT finds some modules by the end of their name.
        whole: makes copies of all its tensors, changed, in the dtype of the base, by their name in the module.
    """

    name: str
    form: Form
    shape: tuple[int, ...]
    parts: tuple[TunedPart, ...]
    rows_alone: bool
    tied_modules: tuple[str, ...]
    followed_by_peft: tuple[str, ...]
    biased: tuple[str, ...]
    namesakes: tuple[str, ...]
    whole: Callable[[], dict[str, Tensor]]

    def part(self, kind: PartKind) -> TunedPart | None:
        """The part of a kind, or None."""
        return next((part for part in self.parts if part.kind == kind), None)


@dataclass(frozen=True)
class Tuned:
    """Everything that an adapter changes in its base model.

    Attributes:
        modules: changed parts, per module.
        whole_modules: tensors of `modules_to_save`, under their names in an adapter file.
        module_names: the `modules_to_save`.
    """

    modules: tuple[TunedModule, ...]
    whole_modules: Mapping[str, Tensor] = field(default_factory=dict)
    module_names: tuple[str, ...] = ()


def tuned_values(model: PeftModel, adapters: Sequence[str], state_dict: Mapping[str, Tensor]) -> Tuned | None:
    """Collect what adapters change.

    Args:
        model: a `PeftModel`, or a model into which ticket layers were injected.
        adapters: their names; where they change the same weight, their deltas add up.
        state_dict: the model's tensors, gathered where the model itself is sharded.

    Returns:
        The values, or None where a needed tensor is sharded and `state_dict` does not hold it whole.

    Cost:
        Copies the pretrained values of the tickets and nothing else.
    """
    names = [name.removeprefix(PEFT_PREFIX) for name, _ in model.named_modules(remove_duplicate=False)]
    modules = []
    for name, layer in model.named_modules():
        if isinstance(layer, PartLayer) and any(layer.changes(adapters, kind) for kind in layer.kinds):
            parts = [_part(name, layer, kind, adapters, state_dict) for kind in layer.kinds]
            found = [part for part in parts if isinstance(part, TunedPart)]
            if "sharded" in parts:
                return None
            modules.append(_tuned_module(model, name, layer, found, names, state_dict))
    whole = {key: value for a in adapters for key, value in _whole_modules(model, a, state_dict).items()}
    saved = [name for a in adapters for name in model.peft_config[a].modules_to_save or ()]
    return Tuned(tuple(modules), whole, tuple(dict.fromkeys(saved)))


def namesakes(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """The other names that end with `name`, as PEFT looks modules up that it saves whole or trains tokens of."""
    return tuple(other for other in names if other != name and other.endswith(name))


def _part(
    name: str, layer: PartLayer, kind: PartKind, adapters: Sequence[str], state_dict: Mapping[str, Tensor]
) -> TunedPart | Literal["sharded"] | None:
    here = [adapter for adapter in adapters if adapter in getattr(layer, kind.values)]
    changes = []
    for adapter in here:
        index = state_dict.get(f"{name}.{kind.index}.{adapter}")
        delta = state_dict.get(f"{name}.{kind.values}.{adapter}")
        if index is None or delta is None:
            return "sharded"
        change = RowChange(index, delta)
        rows = state_dict.get(f"{name}.{ROWS.index}.{adapter}")
        changes.append(columns_outside(change, rows) if kind == COLUMNS and rows is not None else change)
    if not changes:
        return None
    gathered = _gathered(name, layer, kind.parameter, state_dict)
    if gathered == "sharded":
        return "sharded"
    index = union_index(changes)
    return TunedPart(kind, index, layer.pretrained(kind, index, gathered), tuple(changes))


def _gathered(
    name: str, layer: PartLayer, leaf: str, state_dict: Mapping[str, Tensor]
) -> Tensor | Literal["sharded"] | None:
    """A parameter of the base layer from `state_dict`, or None where the layer's own is whole."""
    own = getattr(layer.get_base_layer(), leaf)
    if not is_sharded(own):
        return None
    gathered = state_dict.get(f"{name}.base_layer.{leaf}", own)
    return "sharded" if is_sharded(gathered) else gathered


def is_sharded(weight: Tensor) -> bool:
    """Whether a parameter is spread over processes (FSDP2, DeepSpeed ZeRO-3)."""
    return type(weight).__name__ == "DTensor" or weight.numel() == 0


def _tuned_module(
    model: PeftModel,
    name: str,
    layer: PartLayer,
    parts: Sequence[TunedPart],
    names: Sequence[str],
    state_dict: Mapping[str, Tensor],
) -> TunedModule:
    module = name.removeprefix(PEFT_PREFIX)
    known = (config.tied_modules.get(module) for config in model.peft_config.values())
    tied = tuple(next((others for others in known if others is not None), ()))
    prefix = name.removesuffix(module)
    modules = {own: model.get_submodule(f"{prefix}{own}") for own in (module, *tied)}
    return TunedModule(
        name=module,
        form=_form(layer),
        shape=full_shape(layer.get_base_layer().weight),
        parts=tuple(parts),
        rows_alone=isinstance(layer, RowLayer),
        tied_modules=tied,
        followed_by_peft=_followed_by_peft(model, layer),
        biased=tuple(own for own, other in modules.items() if _has_bias(other)),
        namesakes=namesakes(module, names),
        whole=lambda: _whole(name, layer, parts, state_dict),
    )


def _form(layer: PartLayer) -> Form:
    base = layer.get_base_layer()
    if isinstance(base, nn.Embedding):
        return "embedding"
    if isinstance(layer, LinearLayer) and layer.transposed:
        return "conv1d"
    return "linear" if isinstance(base, nn.Linear) else "vectors"


def _has_bias(module: nn.Module) -> bool:
    base = module.get_base_layer() if isinstance(module, PartLayer) else getattr(module, "base_layer", module)
    return getattr(base, "bias", None) is not None


def _whole(
    name: str, layer: PartLayer, parts: Sequence[TunedPart], state_dict: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    tensors = {}
    for leaf, parameter in layer.get_base_layer().named_parameters(recurse=False):
        gathered = _gathered(name, layer, leaf, state_dict)
        assert not isinstance(gathered, str)
        kind = next((kind for kind in (ROWS, ENTRIES, BIAS) if kind in layer.kinds and kind.parameter == leaf), None)
        if kind is None:
            tensors[leaf] = (parameter if gathered is None else gathered).detach().cpu().clone()
            continue
        size = full_shape(parameter)[0]
        pretrained = layer.pretrained(kind, torch.arange(size), gathered).cpu()
        wide = pretrained.to(wide_dtype(pretrained.dtype))
        for part in parts:
            if part.kind.parameter == leaf:
                _add(wide, part)
        tensors[leaf] = wide.to(pretrained.dtype)
    return tensors


def _add(values: Tensor, part: TunedPart) -> None:
    """Add what a part changes to a whole parameter, in place."""
    index, deltas, dim = part.index.cpu().to(torch.int64), part.deltas().to(values.dtype), part.kind.dim
    if dim is None:
        values.view(-1).index_add_(0, index, deltas)
    else:
        values.index_add_(dim, index, deltas.movedim(0, dim))


def _followed_by_peft(model: PeftModel, layer: PartLayer) -> tuple[str, ...]:
    """PEFT ties other modules only to the module that `get_input_embeddings` returns, in models that say they tie."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    says_tied = getattr(getattr(base, "config", None), "tie_word_embeddings", False)
    if not says_tied or base.get_input_embeddings() is not layer:
        return ()
    return tuple(name.removesuffix(".base_layer") for name in _get_module_names_tied_with_embedding(base))


def _whole_modules(model: PeftModel, adapter: str, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, AuxiliaryTrainingWrapper):
            own = {k.removeprefix(f"{name}."): v for k, v in state_dict.items() if k.startswith(f"{name}.")}
            for key, value in module.adapter_state_dict(adapter, own).items():
                tensors[f"{PEFT_PREFIX}{name.removeprefix(PEFT_PREFIX)}.{key}"] = value
    return tensors


def only_rows(model: PeftModel, adapter: str) -> bool:
    """Whether an adapter changes nothing but rows of embeddings and of `nn.Linear`, and whole modules."""
    return all(set(parts) == {ROWS} for parts in model.peft_config[adapter].parts.values()) and not any(
        isinstance(layer, LinearLayer) and layer.transposed and layer.changes([adapter]) for layer in model.modules()
    )
