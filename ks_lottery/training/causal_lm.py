"""Which models the task code can handle: decoders that continue a prompt."""

from typing import Any

from ks_lottery.errors import OptionError


def require_causal_lm(model: Any, purpose: str) -> None:
    """Check that a model continues a prompt.

    Args:
        model: a transformers model, or a PEFT model around one.
        purpose: what it is needed for, as the message says it ("The probe").

    Raises:
        OptionError: if the model is an encoder-decoder, or no transformers model.
    """
    config = getattr(model, "config", None)
    if config is None or not hasattr(model, "get_output_embeddings"):
        raise OptionError(
            f"{purpose} needs a transformers model such as AutoModelForCausalLM.from_pretrained(...), "
            f"got {type(model).__name__}."
        )
    if getattr(config, "is_encoder_decoder", False):
        raise OptionError(
            f"{purpose} needs a decoder that continues a prompt, but {type(model).__name__} ({config.model_type!r}) is "
            "an encoder-decoder. Use a causal language model; finders, tickets and adapters work on both."
        )
