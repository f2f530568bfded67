"""A whole model with the tuned weights in place: for servers and tools that know no adapters."""

from pathlib import Path

from peft.utils.other import ModulesToSaveWrapper
from peft.utils.save_and_load import get_base_model_state_dict
from torch import Tensor

from ks_lottery.adapter.export.carrier import CARRIERS, Export


@CARRIERS.register("merged")
class MergedCarrier:
    """A full checkpoint of the model in memory, as `save_pretrained` of the base model writes it.

    Tensors that the ticket does not touch keep their bits. From a saved adapter, `export_ticket` builds no model:
    `merged_files` copies the base model's files and rewrites what the ticket changes.

    Cost:
        The changes are merged in place and taken back afterwards, so no second copy of the model is made.
    """

    def rank(self, export: Export) -> int | None:
        """Never: it is no adapter."""
        return None

    def refusal(self, export: Export) -> str | None:
        """Nothing: it holds the whole model."""
        return None

    def write(self, export: Export, folder: Path) -> None:
        """See `Carrier`."""
        model = export.model
        assert model is not None
        merged_before = any(getattr(module, "merged_adapters", None) for module in model.modules())
        if not merged_before:
            model.merge_adapter(safe_merge=True)
        try:
            state: dict[str, Tensor] = get_base_model_state_dict(model)
            for name, module in model.get_base_model().named_modules():
                if isinstance(module, ModulesToSaveWrapper):
                    for adapter in module.active_adapters:
                        tensors = module.modules_to_save[adapter].state_dict()
                        state.update({f"{name}.{key}": value for key, value in tensors.items()})
            model.get_base_model().save_pretrained(folder, state_dict=state)
        finally:
            if not merged_before:
                model.unmerge_adapter()
