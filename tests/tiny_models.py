"""Tiny random models, built in a moment, for tests of every room."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

VOCABULARY = 64
WIDTH = 32


def tiny_llama(seed: int = 0, tied: bool = False, dtype: torch.dtype = torch.float32, vocabulary: int = VOCABULARY):
    """A Llama with 2 layers of width 32; the same seed gives the same weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config).to(dtype)


def shifted(model: torch.nn.Module, rows: list[int], size: float = 1.0, parameter: str = "model.embed_tokens.weight"):
    """A copy of a tiny Llama in which the given rows were moved at random, the first one farthest."""
    copy = type(model)(model.config).to(next(model.parameters()).dtype)
    copy.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        weight = copy.get_parameter(parameter)
        for rank, row in enumerate(rows):
            scale = size / (1 + rank) * weight[row].float().norm()
            direction = torch.randn(weight.shape[1], generator=generator)
            weight[row] += (scale * direction / direction.norm()).to(weight.dtype)
    return copy


def recompute(model: PreTrainedModel, **options: object) -> None:
    """Turn on recomputation in the backward pass, under the name that this version of transformers has for it."""
    names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
    enable = next(getattr(model, name) for name in names if hasattr(model, name))
    enable(options or None)
