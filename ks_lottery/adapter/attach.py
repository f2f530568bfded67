"""Partial tuning: a model in which exactly a ticket trains."""

from peft import PeftModel, get_peft_model
from torch import nn

from ks_lottery.adapter.config import LotteryConfig
from ks_lottery.adapter.fit import chosen_parts, require_fit
from ks_lottery.adapter.parts import position_options
from ks_lottery.adapter.peft_type import KS_TICKET
from ks_lottery.errors import AdapterError
from ks_lottery.ticket.ticket import Ticket

_TASKS = {
    "CAUSAL_LM": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "SEQ_2_SEQ_LM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "SEQ_CLS": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "TOKEN_CLS": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "QUESTION_ANS": "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
}


def attach_ticket(
    model: nn.Module, ticket: Ticket, adapter_name: str = "default", *, check_base: bool = True
) -> PeftModel:
    """Freeze a model and make exactly a ticket's weights trainable.

    The result is an ordinary `PeftModel` for any Trainer: its trainable parameters are the ticket's deltas, float32
    whatever the dtype of the model, zero at the start. What is not selected cannot move, weight decay included, and
    weight decay pulls what is selected towards its pretrained value. Classification heads are trained beside them, as
    PEFT does for its own methods.

    Args:
        model: a transformers model, which is changed in place; or a `PeftModel` with tickets, to which another adapter
            is added (inactive until `model.set_adapter(adapter_name)`, as with all of PEFT).
        ticket: an update ticket; its units may lie in embeddings (rows alone), linear layers, and the vectors of norms.
        adapter_name: name of the adapter.
        check_base: compare sampled weights with the base model that the ticket was found on; rounding to bfloat16 is no
            difference.

    Returns:
        The `PeftModel`.

    Raises:
        AdapterError: if the ticket cannot be trained in this model; the message says why.
        TicketError: if the model is another base model than the ticket's.

    Source:
        Yuan et al. 2025 (KS-Lottery), partial tuning.
    """
    if isinstance(model, PeftModel) and model.peft_type != KS_TICKET:
        raise AdapterError(
            f"The model has an adapter of type {getattr(model.peft_type, 'value', model.peft_type)}, and PEFT does not "
            "mix types in one model. Merge it first: model = model.merge_and_unload()."
        )
    merged = {name for module in model.modules() for name in getattr(module, "merged_adapters", ())}
    if merged:
        raise AdapterError(
            f"The adapters {', '.join(sorted(merged))} are merged into the model, so its weights are not the "
            "pretrained ones. Call model.unmerge_adapter() first."
        )
    require_fit(ticket, model, check_base)
    config = LotteryConfig(
        **position_options((part.parameter, part.dim, part.index) for part in chosen_parts(ticket)),
        ticket=ticket.fingerprint,
        task_type=task_type(model.get_base_model() if isinstance(model, PeftModel) else model),
    )
    if isinstance(model, PeftModel):
        model.add_adapter(adapter_name, config)
        return model
    return get_peft_model(model, config, adapter_name)


def task_type(model: nn.Module) -> str | None:
    """PEFT's task type of a transformers model class; None for classes without a task head."""
    from transformers.models.auto import modeling_auto

    for task, mapping in _TASKS.items():
        classes = getattr(modeling_auto, mapping).values()
        if any(type(model).__name__ in ((names,) if isinstance(names, str) else names) for names in classes):
            return task
    return None
