"""The only table of per-architecture names.

A new architecture is one entry here, or at run time:

    from ks_lottery.units.architecture import Architecture, register_architecture
    register_architecture("my_model", Architecture(input_embedding="encoder.words.weight", output_head="head.weight"))
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ks_lottery.errors import UnknownNameError


@dataclass(frozen=True, slots=True)
class Architecture:
    """Parameter names of one model type, as its causal-LM or sequence-to-sequence class spells them.

    Attributes:
        input_embedding: [V, d] parameter that turns token ids into vectors.
        output_head: [V, d] parameter that turns hidden states into logits.
        stored_names: names in checkpoint files that differ from the live model's, stored to live.
    """

    input_embedding: str
    output_head: str
    stored_names: Mapping[str, str] = field(default_factory=dict)


_DECODER = Architecture("model.embed_tokens.weight", "lm_head.weight")
_SHARED = Architecture("shared.weight", "lm_head.weight")
_MODEL_SHARED = Architecture("model.shared.weight", "lm_head.weight")

_ARCHITECTURES: dict[str, Architecture] = {
    **dict.fromkeys(
        ("llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "olmo2", "smollm3"),
        _DECODER,
    ),
    "gpt2": Architecture("transformer.wte.weight", "lm_head.weight"),
    "bloom": Architecture("transformer.word_embeddings.weight", "lm_head.weight"),
    "gpt_neox": Architecture(
        "gpt_neox.embed_in.weight", "lm_head.weight", stored_names={"embed_out.weight": "lm_head.weight"}
    ),
    "opt": Architecture("model.decoder.embed_tokens.weight", "lm_head.weight"),
    "t5": _SHARED,
    "bart": _MODEL_SHARED,
    "marian": _MODEL_SHARED,
}


def architecture(model_type: str) -> Architecture:
    """Look up the names of a model type.

    Raises:
        UnknownNameError: if the type is not in the table; the message shows how to add it.
    """
    if model_type not in _ARCHITECTURES:
        raise UnknownNameError(
            f"Unknown architecture {model_type!r}; known: {', '.join(sorted(_ARCHITECTURES))}. Add it in one line: "
            f"ks_lottery.units.architecture.register_architecture({model_type!r}, "
            'Architecture(input_embedding="NAME.weight", output_head="NAME.weight")) with names from '
            "model.named_parameters()."
        )
    return _ARCHITECTURES[model_type]


def register_architecture(model_type: str, names: Architecture) -> None:
    """Add or replace the names of a model type for this process."""
    _ARCHITECTURES[model_type] = names


def live_names(model_type: str, stored: Iterable[str]) -> dict[str, str]:
    """Map the tensor names of a checkpoint file to parameter names of the live model.

    Files of some base models lack the prefix of the model with a head ("wte.weight" for "transformer.wte.weight"), and
    some architectures were renamed since their checkpoints were written.

    Args:
        model_type: transformers' name; types that are not in the table keep their names.
        stored: names in the file.

    Returns:
        stored name to live name, for every stored name.
    """
    stored = tuple(stored)
    names = _ARCHITECTURES.get(model_type)
    if names is None:
        return {name: name for name in stored}
    first, _, rest = names.input_embedding.partition(".")
    bare = rest in stored and not any(name.startswith(f"{first}.") for name in stored)
    prefix = f"{first}." if bare else ""
    heads = {names.output_head, *names.stored_names}
    return {name: names.stored_names.get(name, name if name in heads else f"{prefix}{name}") for name in stored}
