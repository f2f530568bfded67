"""The model card of an adapter without its ticket: of a form for plain PEFT, or of a saved adapter alone."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ks_lottery.checkpoints.redaction import redacted
from ks_lottery.ticket.card import LIBRARY_TAG, PIPELINES
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
    model = f"[{base_model}](https://huggingface.co/{base_model})" if base_model else "its base model"
    needs = "needs `pip install ks_lottery`" if own else "loads with PEFT alone"
    fingerprint = config.get("ticket")
    licensed = "No licence is stated for the adapter" if license is None else f"The adapter is under {code(license)}"
    lines = [
        f"---\n{data.to_yaml()}\n---",
        f"# {repo_id.rpartition('/')[2]}",
        f"A lottery ticket as an adapter of type {code(kind)} for {model}: it changes a few weights, and all others "
        f"keep their pretrained values. It {needs}.",
        *([f"Fingerprint of the ticket: {code(str(fingerprint))}."] if fingerprint else []),
        "## How to load it",
        _python(repo_id, base_model, auto_class, own),
        "## Licence",
        f"{licensed}; the licence of {base_model or 'the base model'} applies to what is built with it.",
    ]
    return ModelCard(redacted("\n\n".join(lines) + "\n"))


def _python(repo_id: str, base_model: str | None, auto_class: str, own: bool) -> str:
    imports = (
        ["from ks_lottery import LotteryConfig  # importing it makes the adapter's type known to PEFT"] if own else []
    )
    base = base_model or "path/to/the/base/model"
    return "\n".join(
        [
            "```python",
            *imports,
            "from peft import PeftModel",
            f"from transformers import {auto_class}",
            "",
            f'base = {auto_class}.from_pretrained("{base}")',
            f'model = PeftModel.from_pretrained(base, "{repo_id}")',
            "```",
        ]
    )
