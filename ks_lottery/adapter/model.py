"""The tuner: puts ticket layers into a model, and keeps every end of a shared matrix on the same rows."""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ks_lottery.adapter.checks import require_parts
from ks_lottery.adapter.layer import RowLayer, TiedRowLayer
from ks_lottery.adapter.linear import LinearLayer, VectorLayer
from ks_lottery.adapter.overlap import without_overlap
from ks_lottery.adapter.parts import ROWS, PartKind, PartLayer, TicketLayer, position_options
from ks_lottery.adapter.rows import RowChange, union_index
from ks_lottery.adapter.tuned import only_rows, tuned_values
from ks_lottery.checkpoints.live_model import full_shape
from ks_lottery.errors import AdapterError

if TYPE_CHECKING:
    from ks_lottery.adapter.config import LotteryConfig


class LotteryModel(BaseTuner):
    """PEFT's tuner for tickets.

    What differs from PEFT's defaults, and why:

    - every module that shares a ticket matrix is wrapped, so tied models train and predict with the same rows;
    - modules are put back with `setattr`: PEFT's `_replace_module` copies `weight` onto the module that it puts back,
      which wrappers with a read-only weight refuse;
    - `_get_adapter_state_dict`, through which every way of saving passes, also hands the tuned rows to the config,
      whose `save_pretrained` writes them for plain PEFT.
    """

    prefix = "ks_ticket_"
    tuner_layer_cls = TicketLayer
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Add an adapter.

        Raises:
            AdapterError: if a part cannot be trained in this model, or the model shares its matrices otherwise than the
                model that the adapter belongs to; no module has been replaced then.
        """
        config: LotteryConfig = self.peft_config[adapter_name]
        require_parts(model, config)
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        for name in config.rows:
            for other in config.tied_modules[name]:
                parent, leaf = _parent(model, other)
                source, module = model.get_submodule(name), getattr(parent, leaf)
                if isinstance(source, RowLayer) and not isinstance(module, TiedRowLayer):
                    setattr(parent, leaf, TiedRowLayer(module, source))

    def add_weighted_adapter(self, adapters: Sequence[str], weights: Sequence[float], adapter_name: str) -> None:
        """Add an adapter that is a weighted sum of others.

        Its positions are the union of theirs, and its deltas the weighted sum of their deltas, summed in float64 and
        rounded once.

        Args:
            adapters: names of adapters of this model.
            weights: one per adapter.
            adapter_name: name of the new adapter.

        Raises:
            AdapterError: if a name is unknown or taken, the lengths differ, or an adapter trains whole modules.
        """
        configs = self._weighted(adapters, weights, adapter_name)
        sums: dict[str, dict[PartKind, RowChange]] = {}
        for name in dict.fromkeys(name for config in configs for name in config.parts):
            layer: PartLayer = self.model.get_submodule(name)
            sums[name] = _weighted_layer(layer, adapters, weights)
        self.peft_config[adapter_name] = dataclasses.replace(
            configs[0],
            **position_options(
                (f"{name}.{kind.parameter}", kind.dim, change.index.cpu().numpy())
                for name, changes in sums.items()
                for kind, change in changes.items()
            ),
            rows={},
            columns={},
            entries={},
            target_modules=None,
            tied_modules={name: others for config in configs for name, others in config.tied_modules.items()},
            ticket=None,
        )
        self.inject_adapter(self.model, adapter_name)
        with torch.no_grad():
            for name, changes in sums.items():
                for kind, change in changes.items():
                    getattr(self.model.get_submodule(name), kind.values)[adapter_name].copy_(change.delta)

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
        return key in peft_config.parts

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
        parts = peft_config.parts[current_key]
        if isinstance(target, PartLayer):
            layer = target
        else:
            follows_or_leads = bool(peft_config.tied_modules.get(current_key)) or _output_head(self.model) is target
            layer = _layer_class(target, set(parts), follows_or_leads)(target)
        for kind, (count, positions) in parts.items():
            layer.add_part(adapter_name, kind, count, positions)
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
        config.tuned, reason = None, "it trains more than rows of embeddings and linear layers"
        if only_rows(model, adapter_name):
            config.tuned = tuned_values(model, [adapter_name], state_dict)
            reason = "the base weights are sharded over processes. Load it in one process and call export_ticket"
        config.has_no_plain_form = config.tuned is None
        if config.has_no_plain_form:
            warnings.warn(
                f"The adapter {adapter_name!r} is saved without a form for plain PEFT, because {reason}.", stacklevel=2
            )
        return super()._get_adapter_state_dict(model, config, adapter_name, state_dict, unwanted_adapter_names)


def weighted_sum(parts: Sequence[tuple[RowChange, float]]) -> RowChange:
    """Sum of weight times change, over the union of the positions, in float64."""
    index = union_index([change for change, _ in parts])
    width = parts[0][0].delta.shape[1:]
    total = torch.zeros(len(index), *width, dtype=torch.float64, device=index.device)
    for change, weight in parts:
        slot = torch.searchsorted(index, change.index)
        total.index_add_(0, slot, weight * change.delta.detach().to(torch.float64))
    return RowChange(index, total)


def _weighted_layer(layer: PartLayer, adapters: Sequence[str], weights: Sequence[float]) -> dict[PartKind, RowChange]:
    sums = {}
    for kind in layer.kinds:
        parts = [(layer.changes([a], kind), w) for a, w in zip(adapters, weights, strict=True)]
        if any(changes for changes, _ in parts):
            sums[kind] = weighted_sum([(changes[0], w) for changes, w in parts if changes])
    return without_overlap(sums, full_shape(layer.get_base_layer().weight)[-1]) if len(sums) > 1 else sums


def _output_head(model: nn.Module) -> nn.Module | None:
    getter: Any = getattr(model, "get_output_embeddings", None)
    return None if getter is None else getter()


def _layer_class(module: nn.Module, kinds: set[PartKind], reads_tokens: bool) -> type[PartLayer]:
    """Which layer trains parts of a module; `reads_tokens`: whether it is an output head or shares its matrix."""
    if isinstance(module, nn.Embedding) or (isinstance(module, nn.Linear) and kinds == {ROWS} and reads_tokens):
        return RowLayer
    return LinearLayer if isinstance(module, nn.Linear | Conv1D) else VectorLayer


def _parent(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf
