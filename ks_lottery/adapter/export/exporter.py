"""Exporting a trained ticket for people without this library."""

import os
from pathlib import Path

from peft import PeftConfig, PeftModel

from ks_lottery.adapter.export.carrier import CARRIERS, Export
from ks_lottery.adapter.export.plain import best_carrier, header_of
from ks_lottery.adapter.peft_type import KS_TICKET
from ks_lottery.adapter.tuned import tuned_values
from ks_lottery.checkpoints.writer import atomic_folder
from ks_lottery.errors import AdapterError

_AUTO_CLASSES = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
}


def export_ticket(
    model_or_adapter: "PeftModel | str | os.PathLike[str]",
    folder: str | os.PathLike[str],
    to: str = "auto",
    base_model: str | None = None,
) -> Path:
    """Write a trained ticket in a form that loads where `ks_lottery` is not installed.

    Args:
        model_or_adapter: a model from `attach_ticket`, of which the active adapters are exported, or the folder or Hub
            id of a saved adapter.
        folder: where to; an older folder there is replaced as a whole.
        to: a carrier: "trainable_tokens" or "lora_tokens" (adapters for plain PEFT), "merged" (a whole model), or
            "auto" for the adapter that holds the values exactly.
        base_model: what the adapter calls its base model, best its Hub id; the name under which the model was loaded if
            None. A saved adapter is also loaded onto it.

    Returns:
        The folder.

    Raises:
        AdapterError: if there is no ticket adapter, or the carrier cannot hold it exactly; with the way out.
        UnknownNameError: if there is no such carrier.
    """
    if to != "auto":
        CARRIERS.get(to)
    model = model_or_adapter if isinstance(model_or_adapter, PeftModel) else _load(model_or_adapter, base_model)
    if model.peft_type != KS_TICKET:
        kind = getattr(model.peft_type, "value", model.peft_type)
        raise AdapterError(f"export_ticket exports ticket adapters, but this model has one of type {kind}.")
    export = _export_of(model, base_model)
    carrier = best_carrier(export) if to == "auto" else CARRIERS.get(to)()
    refusal = carrier.refusal(export)
    if refusal is not None:
        raise AdapterError(f"The carrier {to!r} cannot hold this ticket exactly: {refusal}. Use to='auto' or 'merged'.")
    with atomic_folder(folder) as temporary:
        carrier.write(export, temporary)
    return Path(folder)


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


def _load(adapter: "str | os.PathLike[str]", base_model: str | None) -> PeftModel:
    import transformers

    from ks_lottery.adapter.config import LotteryConfig

    config = PeftConfig.from_pretrained(os.fspath(adapter))
    if not isinstance(config, LotteryConfig):
        kind = getattr(config.peft_type, "value", config.peft_type)
        raise AdapterError(f"{os.fspath(adapter)!r} holds an adapter of type {kind}; export_ticket exports KS_TICKET.")
    name = base_model or config.base_model_name_or_path
    if not name:
        raise AdapterError(f"{os.fspath(adapter)!r} does not say what its base model is. Give base_model.")
    auto_class = getattr(transformers, _AUTO_CLASSES.get(config.task_type, "AutoModel"))
    return PeftModel.from_pretrained(auto_class.from_pretrained(name), os.fspath(adapter))
