"""Exporting a trained ticket for people without this library."""

import os
from pathlib import Path

from peft import PeftModel

from ks_lottery.adapter.export.base_files import Progress
from ks_lottery.adapter.export.carrier import CARRIERS, Export
from ks_lottery.adapter.export.merged_files import write_merged_files
from ks_lottery.adapter.export.plain import best_carrier, header_of
from ks_lottery.adapter.export.saved_adapter import SavedAdapter
from ks_lottery.adapter.peft_type import KS_TICKET
from ks_lottery.adapter.tuned import tuned_values
from ks_lottery.checkpoints.reader import FolderCheckpoint, open_checkpoint
from ks_lottery.checkpoints.writer import atomic_folder
from ks_lottery.errors import AdapterError
from ks_lottery.ticket.card import AUTO_CLASSES


def export_ticket(
    model_or_adapter: "PeftModel | str | os.PathLike[str]",
    folder: str | os.PathLike[str],
    to: str = "auto",
    base_model: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a trained ticket in a form that loads where `ks_lottery` is not installed.

    Args:
        model_or_adapter: a model from `attach_ticket`, of which the active adapters are exported, or the folder or Hub
            id of a saved adapter.
        folder: where to; an older folder there is replaced as a whole.
        to: a carrier: "trainable_tokens", "lora", "supertuning", "shira" or "lora_embedding" (adapters for plain PEFT),
            "merged" (a whole model), or "auto" for the adapter that suits the ticket best.
        base_model: what the adapter calls its base model, best its Hub id; the name under which the model was loaded if
            None. A saved adapter is also loaded onto it, or merged into its files.
        progress: where a saved adapter is merged, called with the bytes to copy; what it returns is told of those done.

    Returns:
        The folder.

    Raises:
        AdapterError: if there is no ticket adapter, or the carrier cannot hold it exactly, with the way out; or if the
            folder is or holds the adapter or its base model.
        UnknownNameError: if there is no such carrier.
        CheckpointError: if the base model of a saved adapter is to be merged into, and cannot be read.
        HubError: if something has to be downloaded and cannot be.

    Cost:
        From a saved adapter, "merged" builds no model: it copies the base model's files byte for byte, sharded or not,
        and rewrites in them what the ticket changes. The other carriers load the base model.
    """
    if to != "auto":
        CARRIERS.get(to)
    if isinstance(model_or_adapter, PeftModel):
        return _export_model(model_or_adapter, folder, to, base_model)
    adapter = SavedAdapter(model_or_adapter)
    name, revision = _base_of(adapter, base_model)
    for kept in (adapter.folder, Path(name)):
        if kept.exists() and kept.resolve().is_relative_to(Path(folder).resolve()):
            raise AdapterError(
                f"The export would replace {os.fspath(folder)!r}, and with it {str(kept)!r}, from which it is made. "
                "Choose another folder."
            )
    if to == "merged":
        base = open_checkpoint(name if revision is None or Path(name).is_dir() else f"{name}@{revision}")
        assert isinstance(base, FolderCheckpoint)
        with atomic_folder(folder) as temporary:
            write_merged_files(adapter, base, temporary, progress)
        return Path(folder)
    return _export_model(_load(adapter, name, revision), folder, to, base_model)


def _export_model(model: PeftModel, folder: str | os.PathLike[str], to: str, base_model: str | None) -> Path:
    if model.peft_type != KS_TICKET:
        kind = getattr(model.peft_type, "value", model.peft_type)
        raise AdapterError(f"export_ticket exports ticket adapters, but this model has one of type {kind}.")
    export = _export_of(model, base_model)
    carrier = best_carrier(export) if to == "auto" else CARRIERS.get(to)()
    refusal = carrier.refusal(export)
    if refusal is not None:
        raise AdapterError(f"The carrier {to!r} cannot hold this ticket exactly: {refusal}. {_way_out(export, to)}")
    with atomic_folder(folder) as temporary:
        carrier.write(export, temporary)
    return Path(folder)


def _way_out(export: Export, refused: str) -> str:
    """Which carriers can hold what another one cannot."""
    able = [name for name, kind in CARRIERS.items() if name != refused and kind().refusal(export) is None]
    return f"Carriers that can: {', '.join(able)}."


def _export_of(model: PeftModel, base_model: str | None) -> Export:
    adapters = model.active_adapters
    configs = [model.peft_config[adapter] for adapter in adapters]
    whole = [adapter for adapter, config in zip(adapters, configs, strict=True) if config.modules_to_save]
    if len(adapters) > 1 and whole:
        raise AdapterError(
            f"The adapters {', '.join(adapters)} are active together, and {', '.join(whole)} also train whole modules; "
            "PEFT uses those of one adapter at a time. Export them one by one: model.set_adapter(name)."
        )
    tuned = tuned_values(model, adapters, model.state_dict())
    if tuned is None:
        raise AdapterError("The base weights are sharded over processes. Load the saved adapter in one process first.")
    auto_mapping = None
    if configs[0].task_type is None:
        base = type(model.get_base_model())
        auto_mapping = {"base_model_class": base.__name__, "parent_library": base.__module__}
    return Export(tuned, header_of(configs[0], auto_mapping, base_model), model)


def _base_of(adapter: SavedAdapter, base_model: str | None) -> tuple[str, str | None]:
    """Name and revision of the base model of a saved adapter."""
    if base_model:
        return base_model, None
    if not adapter.config.base_model_name_or_path:
        raise AdapterError(f"{adapter.name!r} does not say what its base model is. Give base_model.")
    return adapter.config.base_model_name_or_path, adapter.config.revision


def _load(adapter: SavedAdapter, base_model: str, revision: str | None) -> PeftModel:
    import transformers

    auto_class = getattr(transformers, AUTO_CLASSES.get(adapter.config.task_type, "AutoModel"))
    base = auto_class.from_pretrained(base_model, revision=revision or "main")
    return PeftModel.from_pretrained(base, str(adapter.folder))
