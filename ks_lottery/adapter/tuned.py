"""The values of a trained ticket, read off a model: what every export writes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from peft import PeftModel
from peft.utils.other import AuxiliaryTrainingWrapper, _get_module_names_tied_with_embedding
from torch import Tensor

from ks_lottery.adapter.layer import RowLayer
from ks_lottery.adapter.rows import RowChange, add_changes, union_index

PEFT_PREFIX = "base_model.model."


@dataclass(frozen=True)
class TunedMatrix:
    """The changed rows of one matrix.

    Attributes:
        module: name of its module in the base model ("model.embed_tokens").
        tied_modules: names of the other modules that share it.
        index: [k] int64; which rows.
        pretrained: [k, d] their pretrained values, in the dtype of the matrix.
        changes: what is added to them, of one or more adapters.
        has_bias: whether the module adds a bias to its output.
        followed_by_peft: names of the modules that PEFT's own token layer would tie to this one.
    """

    module: str
    tied_modules: tuple[str, ...]
    index: Tensor
    pretrained: Tensor
    changes: tuple[RowChange, ...]
    has_bias: bool
    followed_by_peft: tuple[str, ...]

    def values(self) -> Tensor:
        """[k, d] tuned rows in float32 or wider, on the CPU; rounded to the base dtype they are the merged rows."""
        with torch.no_grad():
            return add_changes(self.pretrained, self.index, self.changes).cpu().contiguous()


@dataclass(frozen=True)
class Tuned:
    """Everything that an adapter changes in its base model.

    Attributes:
        matrices: changed rows, per matrix.
        whole_modules: tensors of `modules_to_save`, under their names in an adapter file.
        module_names: the `modules_to_save`.
    """

    matrices: tuple[TunedMatrix, ...]
    whole_modules: Mapping[str, Tensor] = field(default_factory=dict)
    module_names: tuple[str, ...] = ()


def tuned_values(model: PeftModel, adapters: Sequence[str], state_dict: Mapping[str, Tensor]) -> Tuned | None:
    """Collect what adapters change.

    Args:
        model: a `PeftModel`, or a model into which ticket layers were injected.
        adapters: their names; where they change the same row, their deltas add up.
        state_dict: the model's tensors, gathered where the model itself is sharded.

    Returns:
        The values, or None where a needed tensor is sharded and `state_dict` does not hold it whole.

    Cost:
        Copies the pretrained rows of the tickets and nothing else.
    """
    matrices = []
    for name, layer in model.named_modules():
        if isinstance(layer, RowLayer) and layer.changes(adapters):
            matrix = _tuned_matrix(model, name, layer, adapters, state_dict)
            if matrix is None:
                return None
            matrices.append(matrix)
    whole = {key: value for a in adapters for key, value in _whole_modules(model, a, state_dict).items()}
    names = [name for a in adapters for name in model.peft_config[a].modules_to_save or ()]
    return Tuned(tuple(matrices), whole, tuple(dict.fromkeys(names)))


def _tuned_matrix(
    model: PeftModel, name: str, layer: RowLayer, adapters: Sequence[str], state_dict: Mapping[str, Tensor]
) -> TunedMatrix | None:
    here = [adapter for adapter in adapters if adapter in layer.ks_ticket_delta]
    base = layer.get_base_layer()
    weight = state_dict.get(f"{name}.base_layer.weight", base.weight)
    tensors = [
        (state_dict.get(f"{name}.ks_ticket_index.{adapter}"), state_dict.get(f"{name}.ks_ticket_delta.{adapter}"))
        for adapter in here
    ]
    changes = [RowChange(index, delta) for index, delta in tensors if index is not None and delta is not None]
    sharded = type(weight).__name__ == "DTensor" or weight.numel() == 0
    if sharded or len(changes) < len(here):
        return None
    module = name.removeprefix(PEFT_PREFIX)
    index = union_index(changes)
    return TunedMatrix(
        module=module,
        tied_modules=tuple(model.peft_config[here[0]].tied_modules[module]),
        index=index,
        pretrained=layer.pretrained_rows(index, weight),
        changes=tuple(changes),
        has_bias=getattr(base, "bias", None) is not None,
        followed_by_peft=_followed_by_peft(model, layer),
    )


def _followed_by_peft(model: PeftModel, layer: RowLayer) -> tuple[str, ...]:
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
