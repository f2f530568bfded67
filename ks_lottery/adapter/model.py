"""The tuner: puts ticket layers into a model, and keeps every end of a shared matrix on the same rows."""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn

from ks_lottery.adapter.layer import RowLayer, RowReader, TiedRowLayer
from ks_lottery.adapter.rows import RowChange, union_index
from ks_lottery.adapter.tuned import tuned_values
from ks_lottery.errors import AdapterError

if TYPE_CHECKING:
    from ks_lottery.adapter.config import LotteryConfig


class LotteryModel(BaseTuner):
    """PEFT's tuner for tickets of token rows.

    What differs from PEFT's defaults, and why:

    - every module that shares a ticket matrix is wrapped, so tied models train and predict with the same rows;
    - modules are put back with `setattr`: PEFT's `_replace_module` copies `weight` onto the module that it puts back,
      which wrappers with a read-only weight refuse;
    - `_get_adapter_state_dict`, through which every way of saving passes, also hands the tuned rows to the config,
      whose `save_pretrained` writes them for plain PEFT.
    """

    prefix = "ks_ticket_"
    tuner_layer_cls = RowReader
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Add an adapter.

        Raises:
            AdapterError: if the model shares its matrices otherwise than the model that the adapter belongs to.
        """
        config: LotteryConfig = self.peft_config[adapter_name]
        for name in config.rows:
            _agree_on_sharing(model, name, config)
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        for name in config.rows:
            for other in config.tied_modules[name]:
                parent, leaf = _parent(model, other)
                source, module = model.get_submodule(name), getattr(parent, leaf)
                if isinstance(source, RowLayer) and not isinstance(module, TiedRowLayer):
                    setattr(parent, leaf, TiedRowLayer(module, source))

    def add_weighted_adapter(self, adapters: Sequence[str], weights: Sequence[float], adapter_name: str) -> None:
        """Add an adapter that is a weighted sum of others.

        Its rows are the union of theirs, and its deltas the weighted sum of their deltas, summed in float64 and rounded
        once.

        Args:
            adapters: names of adapters of this model.
            weights: one per adapter.
            adapter_name: name of the new adapter.

        Raises:
            AdapterError: if a name is unknown or taken, the lengths differ, or an adapter trains whole modules.
        """
        configs = self._weighted(adapters, weights, adapter_name)
        sums: dict[str, RowChange] = {}
        for name in dict.fromkeys(name for config in configs for name in config.rows):
            layer: RowLayer = self.model.get_submodule(name)
            parts = [(layer.changes([a])[0], w) for a, w in zip(adapters, weights, strict=True) if layer.changes([a])]
            sums[name] = weighted_sum(parts)
        self.peft_config[adapter_name] = dataclasses.replace(
            configs[0],
            rows={},
            target_modules=None,
            positions={name: change.index.tolist() for name, change in sums.items()},
            tied_modules={name: others for config in configs for name, others in config.tied_modules.items()},
            ticket=None,
        )
        self.inject_adapter(self.model, adapter_name)
        with torch.no_grad():
            for name, change in sums.items():
                self.model.get_submodule(name).ks_ticket_delta[adapter_name].copy_(change.delta)

    def _weighted(self, adapters: Sequence[str], weights: Sequence[float], name: str) -> "list[LotteryConfig]":
        unknown = [adapter for adapter in adapters if adapter not in self.peft_config]
        if unknown or not adapters:
            raise AdapterError(
                f"add_weighted_adapter: there is no adapter {', '.join(map(repr, unknown)) or '[]'}; "
                f"the model has {', '.join(map(repr, self.peft_config))}."
            )
        if len(weights) != len(adapters):
            raise AdapterError(f"add_weighted_adapter: {len(adapters)} adapters, but {len(weights)} weights.")
        if name in self.peft_config:
            raise AdapterError(f"add_weighted_adapter: the model has an adapter {name!r} already; choose another name.")
        configs = [self.peft_config[adapter] for adapter in adapters]
        whole = [adapter for adapter, config in zip(adapters, configs, strict=True) if config.modules_to_save]
        if whole:
            raise AdapterError(
                f"add_weighted_adapter: {', '.join(map(repr, whole))} also train whole modules (modules_to_save), "
                "of which no weighted sum is defined. Merge the adapters one after the other instead."
            )
        return configs

    @staticmethod
    def _check_target_module_exists(peft_config: "LotteryConfig", key: str) -> bool:
        return key in peft_config.rows

    def _create_and_replace(
        self,
        peft_config: "LotteryConfig",
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        layer = target if isinstance(target, RowLayer) else RowLayer(target)
        layer.update_layer(adapter_name, peft_config.rows[current_key], (peft_config.positions or {}).get(current_key))
        setattr(parent, target_name, layer)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        setattr(parent, child_name, new_module)

    def _check_tied_modules(self, model: nn.Module, peft_config: "LotteryConfig") -> None:
        """Nothing to warn about: `inject_adapter` wraps every end of a shared matrix."""

    def _get_tied_target_modules(self, model: nn.Module) -> list[str]:
        return []

    @classmethod
    def _get_adapter_state_dict(
        cls,
        model: PeftModel,
        config: "LotteryConfig",
        adapter_name: str,
        state_dict: dict[str, Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, Tensor]:
        config.tuned = tuned_values(model, [adapter_name], state_dict)
        if config.tuned is None:
            warnings.warn(
                f"The adapter {adapter_name!r} is saved without a form for plain PEFT, because the base weights are "
                "sharded over processes. Load it in one process and call export_ticket.",
                stacklevel=2,
            )
        return super()._get_adapter_state_dict(model, config, adapter_name, state_dict, unwanted_adapter_names)


def modules_sharing(model: nn.Module, name: str) -> list[str]:
    """Names of the other modules that share the weight of module `name`; a ticket layer counts as the module in it."""
    module = model.get_submodule(name)
    weight = module.get_base_layer().weight if isinstance(module, RowReader) else module.weight
    found = (
        other.removesuffix(".base_layer")
        for other, candidate in model.named_modules(remove_duplicate=False)
        if candidate._parameters.get("weight") is weight
    )
    return [other for other in dict.fromkeys(found) if other != name]


def weighted_sum(parts: Sequence[tuple[RowChange, float]]) -> RowChange:
    """Sum of weight times change, over the union of the rows, in float64 rounded once to float32."""
    index = union_index([change for change, _ in parts])
    width = parts[0][0].delta.shape[1]
    total = torch.zeros(len(index), width, dtype=torch.float64, device=index.device)
    for change, weight in parts:
        slot = torch.searchsorted(index, change.index)
        total.index_add_(0, slot, weight * change.delta.detach().to(torch.float64))
    return RowChange(index, total.to(torch.float32))


def _agree_on_sharing(model: nn.Module, name: str, config: "LotteryConfig") -> None:
    try:
        live = modules_sharing(model, name)
    except AttributeError as error:
        raise AdapterError(
            f"The adapter trains rows of the module {name!r}, which this {type(model).__name__} does not have "
            f"({error}). Load it on the model class that it was trained on."
        ) from error
    for other in live:
        if other in config.rows or isinstance(model.get_submodule(other), RowLayer):
            raise AdapterError(
                f"{name!r} and {other!r} share one matrix in this model, so their rows cannot be chosen apart. Give "
                f"the rows of one of them, {other!r} if it has an adapter already; the other one follows."
            )
    known = config.tied_modules.setdefault(name, live)
    if set(known) != set(live):
        raise AdapterError(
            f"The adapter was trained where {name!r} shares its matrix with {_names(known)}, but in this model it "
            f"shares it with {_names(live)}: the same rows would mean another model. Load the base model with the same "
            "tie_word_embeddings as in training."
        )


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(repr, sorted(names))) or "no other module"


def _parent(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf
