"""One tiny random model of every architecture in the table, with all its weights random: biases and norms too."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ks_lottery.checkpoints.reader import ModelCheckpoint
from ks_lottery.units.layout import ModelLayout
from ks_lottery.units.slab import Slab

_DECODER = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "intermediate_size": 12, "vocab_size": 20, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_ENCODER = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 12, "vocab_size": 20,
    "max_position_embeddings": 20, "pad_token_id": 0,
}  # fmt: skip
_BART = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 12, "decoder_ffn_dim": 10, "vocab_size": 20, "max_position_embeddings": 20, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": None,
}  # fmt: skip
_T5 = {"d_model": 16, "d_kv": 8, "num_heads": 4, "d_ff": 12, "num_layers": 2, "num_decoder_layers": 2, "vocab_size": 20}
_VISION = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "image_size": 8}

# Name of the case: (model type, class, configuration).
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    **{
        name: (name, "AutoModelForCausalLM", _DECODER)
        for name in ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "smollm3", "olmo2", "phi3")
    },
    "llama with biases": ("llama", "AutoModelForCausalLM", {**_DECODER, "attention_bias": True, "mlp_bias": True}),
    "bare llama": ("llama", "AutoModel", _DECODER),
    "mixtral": ("mixtral", "AutoModelForCausalLM", {**_DECODER, "num_local_experts": 3, "num_experts_per_tok": 2}),
    "gemma3": (
        "gemma3", "AutoModelForImageTextToText",
        {"text_config": _DECODER, "vision_config": {**_VISION, "patch_size": 4}, "mm_tokens_per_image": 4},
    ),
    "gpt2": ("gpt2", "AutoModelForCausalLM", {
        "n_embd": 16, "n_layer": 2, "n_head": 4, "n_inner": 12, "vocab_size": 20, "n_positions": 16, "bos_token_id": 1,
        "eos_token_id": 2,
    }),
    "gpt_neox": ("gpt_neox", "AutoModelForCausalLM", {**_ENCODER, "bos_token_id": 1, "eos_token_id": 2}),
    "opt": ("opt", "AutoModelForCausalLM", {**_ENCODER, "ffn_dim": 12, "word_embed_proj_dim": 16}),
    "bloom": ("bloom", "AutoModelForCausalLM", {"hidden_size": 16, "n_layer": 2, "n_head": 4, "vocab_size": 20}),
    **{
        name: (name, "AutoModelForSequenceClassification", _ENCODER)
        for name in ("bert", "roberta", "xlm-roberta", "deberta-v2")
    },
    "bare bert": ("bert", "AutoModel", _ENCODER),
    "bert for tokens": ("bert", "AutoModelForMaskedLM", _ENCODER),
    "deberta-v2 with relative positions": ("deberta-v2", "AutoModelForSequenceClassification", {
        **_ENCODER, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "max_relative_positions": 8,
        "norm_rel_ebd": "layer_norm",
    }),
    "distilbert": ("distilbert", "AutoModelForSequenceClassification", {
        "dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 12, "vocab_size": 20, "max_position_embeddings": 20,
    }),
    "t5": ("t5", "AutoModelForSeq2SeqLM", _T5),
    "gated t5": ("t5", "AutoModelForSeq2SeqLM", {**_T5, "feed_forward_proj": "gated-gelu"}),
    "mt5": ("mt5", "AutoModelForSeq2SeqLM", _T5),
    **{name: (name, "AutoModelForSeq2SeqLM", _BART) for name in ("bart", "mbart", "marian")},
    "vit": ("vit", "AutoModelForImageClassification", {
        **_VISION, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 12, "patch_size": 4,
    }),
}  # fmt: skip
# Blocks that normalise the sum of a sublayer and what it got, not the sublayer's inputs or outputs.
POST_NORM = {"bert", "roberta", "xlm-roberta", "deberta-v2", "distilbert", "bart", "marian"}


@cache
def tiny(case: str) -> nn.Module:
    """The model of a case. Tests put back what they change."""
    model_type, kind, options = CASES[case]
    config = transformers.AutoConfig.for_model(model_type, **options)
    torch.manual_seed(0)
    model = getattr(transformers, kind).from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(mean=1.0 if "norm" in name.lower() and parameter.dim() == 1 else 0.0, std=0.3)
    return model


def layout_of(case: str) -> ModelLayout:
    return ModelCheckpoint(tiny(case)).layout()


def outputs(case: str) -> Tensor:
    """Logits of a fixed input, or hidden states of a bare model."""
    model = tiny(case)
    tokens = torch.tensor([[3, 7, 5, 11, 4], [6, 3, 19, 8, 10]])
    inputs: dict[str, Any] = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if model.config.model_type == "vit":
        inputs = {"pixel_values": torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8).sin()}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = tokens.flip(0)
    with torch.no_grad():
        result = model(**inputs)
    return result["logits"] if "logits" in result else result["last_hidden_state"]


@contextmanager
def changed(case: str) -> Iterator[dict[str, nn.Parameter]]:
    """All parameters of the model of a case, to change without gradient; they are put back at the end."""
    parameters = dict(tiny(case).named_parameters())
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    with torch.no_grad():
        yield parameters
        for name, parameter in parameters.items():
            parameter.copy_(before[name])


def zeroed(case: str, slabs: Sequence[Slab], unit: int) -> Tensor:
    """Outputs with some slabs of one unit set to zero."""
    with changed(case) as parameters:
        for slab in slabs:
            slab.fill(parameters[slab.parameter], np.array([unit]), 0.0)
        return outputs(case)


def gated(case: str, module: nn.Module, columns: slice) -> Tensor:
    """Outputs with some of the values that a module reads set to zero."""

    def gate(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        values = inputs[0].clone()
        values[..., columns] = 0.0
        return (values, *inputs[1:])

    with hooked(module.register_forward_pre_hook(gate)):
        return outputs(case)


def read_by(case: str, module: nn.Module) -> Tensor:
    """The values that a module reads."""
    seen = []
    with hooked(module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))):
        outputs(case)
    return seen[0]


@contextmanager
def hooked(handle: RemovableHandle) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()
