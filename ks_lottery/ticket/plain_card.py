"""The model card of an adapter without its ticket: of a form for plain PEFT, or of a saved adapter alone."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ks_lottery.checkpoints.redaction import redacted
from ks_lottery.ticket.card import (
    LIBRARY_TAG,
    OWN_IMPORT,
    PEFT_IMPORT,
    PIPELINES,
    licence,
    loading_code,
    model_link,
)
from ks_lottery.ticket.markdown import code

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

_OWN_TYPE = "KS_TICKET"


def adapter_card(
    config: Mapping[str, Any],
    repo_id: str,
    *,
    base_model: str | None = None,
    auto_class: str = "AutoModelForCausalLM",
    language: str | Sequence[str] | None = None,
    license: str | None = None,
) -> "ModelCard":
    """Write the card of a repository that holds an adapter and no ticket.

    Args:
        config: the adapter's configuration.
        repo_id: where it will be.
        base_model: Hub id of the base model, or None if it is not on the Hub.
        auto_class: class of transformers that loads the base model.
        language: code or codes of the languages.
        license: identifier of the licence.

    Returns:
        the card, metadata and text.
    """
    from huggingface_hub import ModelCard, ModelCardData

    data = ModelCardData(
        base_model=base_model,
        base_model_relation="adapter" if base_model else None,
        library_name="peft",
        language=language if language is None or isinstance(language, str) else list(language),
        license=license,
        tags=[LIBRARY_TAG, "lottery-ticket", "peft"],
        pipeline_tag=PIPELINES.get(auto_class),
    )
    kind = str(config.get("peft_type"))
    own = kind == _OWN_TYPE
    needs = "needs `pip install ks_lottery`" if own else "loads with PEFT alone"
    fingerprint = config.get("ticket")
    load = f'model = PeftModel.from_pretrained(base, "{repo_id}")'
    lines = [
        f"---\n{data.to_yaml()}\n---",
        f"# {repo_id.rpartition('/')[2]}",
        f"A lottery ticket as an adapter of type {code(kind)} for {model_link(base_model)}: it changes a few "
        f"weights, and all others keep their pretrained values. It {needs}.",
        *([f"Fingerprint of the ticket: {code(str(fingerprint))}."] if fingerprint else []),
        "## How to load it",
        loading_code(base_model, auto_class, [OWN_IMPORT, PEFT_IMPORT] if own else [PEFT_IMPORT], load),
        "## Licence",
        licence("adapter", license, base_model),
    ]
    return ModelCard(redacted("\n\n".join(lines) + "\n"))
