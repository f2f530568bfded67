"""The only table of per-architecture names.

An architecture that is not in it is registered at run time; the error for an unknown one holds the code to copy.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ks_lottery.errors import UnknownNameError
from ks_lottery.units.stack import Attention, FeedForward, Stack


@dataclass(frozen=True, slots=True)
class Architecture:
    """Parameter names of one model type, as its class with a head spells them.

    Attributes:
        input_embedding: [V, d] parameter that turns token ids into vectors; empty if the model reads no tokens.
        output_head: [V, d] parameter that turns hidden states into logits of tokens; empty if there is none.
        stored_names: parts of names in checkpoint files that differ from the live model's: regular expression to
            replacement, applied in order.
        stored_apart: regular expression; tensors in files whose names it matches are parts of parameters that the live
            model fuses, such as the matrices of single experts. Empty if there are none.
        stacks: where the transformer blocks are and what they consist of; needed by all units but token rows.
    """

    input_embedding: str
    output_head: str
    stored_names: Mapping[str, str] = field(default_factory=dict)
    stored_apart: str = field(default="", kw_only=True)
    stacks: tuple[Stack, ...] = ()


def _attention(place: str, names: str, **options: Any) -> Attention:
    """Separate projections below one module: `names` are those of query, key, value and output."""
    query, key, value, output = (f"{place}.{name}" for name in names.split())
    return Attention(query, key, value, output, **options)


def _fused_attention(matrix: str, output: str, **options: Any) -> Attention:
    """One matrix for query, key and value."""
    return Attention(matrix, matrix, matrix, output, **options)


def _decoder(attention: Attention, feed_forward: FeedForward, base: str = "model") -> Architecture:
    """A causal language model whose blocks are `base.layers`."""
    stack = Stack(f"{base}.layers", (attention,), (feed_forward,))
    return Architecture(f"{base}.embed_tokens.weight", "lm_head.weight", stacks=(stack,))


def _bert(base: str, output_head: str, names: str = "query key value") -> Architecture:
    """BERT and its relatives; old files call the weights of norms gamma and beta."""
    query, key, value = (f"attention.self.{name}" for name in names.split())
    relative = ("attention.self.pos_query_proj", "attention.self.pos_key_proj")
    attention = Attention(query, key, value, "attention.output.dense", beside_query=relative)
    stack = Stack(f"{base}.encoder.layer", (attention,), (FeedForward(("intermediate.dense",), "output.dense"),))
    stored = {r"\.LayerNorm\.gamma$": ".LayerNorm.weight", r"\.LayerNorm\.beta$": ".LayerNorm.bias"}
    return Architecture(f"{base}.embeddings.word_embeddings.weight", output_head, stored, (stack,))


def _bart() -> Architecture:
    """BART and its relatives: encoder and decoder count their heads separately."""
    names, inside, outside = "q_proj k_proj v_proj out_proj", "encoder_attention_heads", "decoder_attention_heads"
    cross = _attention("encoder_attn", names, group="cross_heads", heads=outside)
    own, other = (_attention("self_attn", names, heads=heads) for heads in (inside, outside))
    encoder = Stack("model.encoder.layers", (own,), (_PLAIN,), "encoder")
    decoder = Stack("model.decoder.layers", (other, cross), (_PLAIN,), "decoder")
    return Architecture("model.shared.weight", "lm_head.weight", stacks=(encoder, decoder))


def _t5() -> Architecture:
    """T5 and its relatives, gated or not. The table of relative positions serves all blocks and belongs to no head."""
    options = {"heads": "num_heads", "head_dim": "d_kv"}
    own = _attention("layer.0.SelfAttention", "q k v o", **options)
    cross = _attention("layer.1.EncDecAttention", "q k v o", group="cross_heads", **options)

    def feed_forward(place: str) -> tuple[FeedForward, ...]:
        gated = FeedForward((f"{place}.wi_0", f"{place}.wi_1"), f"{place}.wo")
        return gated, FeedForward((f"{place}.wi",), f"{place}.wo")

    encoder = Stack("encoder.block", (own,), feed_forward("layer.1.DenseReluDense"), "encoder")
    decoder = Stack("decoder.block", (own, cross), feed_forward("layer.2.DenseReluDense"), "decoder")
    return Architecture("shared.weight", "lm_head.weight", stacks=(encoder, decoder))


_GATED = FeedForward(("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj")
_FUSED_GATED = FeedForward(("mlp.gate_up_proj",), "mlp.down_proj", halves=True)
_EXPERTS = FeedForward(("mlp.experts.gate_up_proj",), "mlp.experts.down_proj", halves=True, experts=True)
_PLAIN = FeedForward(("fc1",), "fc2")
_FOUR_H = FeedForward(("mlp.dense_h_to_4h",), "mlp.dense_4h_to_h")

_SELF = _attention("self_attn", "q_proj k_proj v_proj o_proj")
_OLMO2 = replace(_SELF, beside_query=("self_attn.q_norm",), beside_key=("self_attn.k_norm",))
_OPT = _attention("self_attn", "q_proj k_proj v_proj out_proj")
_DISTILBERT = _attention("attention", "q_lin k_lin v_lin out_lin", heads="n_heads")
_VIT = _attention("attention", "q_proj k_proj v_proj o_proj")
_PHI3 = _fused_attention("self_attn.qkv_proj", "self_attn.o_proj")
_GPT2 = _fused_attention("attn.c_attn", "attn.c_proj", heads="n_head")
_GPT_NEOX = _fused_attention("attention.query_key_value", "attention.dense", interleaved=True)
_BLOOM = _fused_attention("self_attention.query_key_value", "self_attention.dense", interleaved=True, heads="n_head")

_VIT_STORED = {
    r"^(vit\.)?encoder\.layer\.": r"\1layers.",
    r"\.attention\.attention\.query\.": ".attention.q_proj.",
    r"\.attention\.attention\.key\.": ".attention.k_proj.",
    r"\.attention\.attention\.value\.": ".attention.v_proj.",
    r"\.attention\.output\.dense\.": ".attention.o_proj.",
    r"\.intermediate\.dense\.": ".mlp.fc1.",
    r"\.output\.dense\.": ".mlp.fc2.",
}
_GEMMA3_STORED = {
    r"^language_model\.model\.": "model.language_model.",
    r"^language_model\.lm_head\.": "lm_head.",
    r"^vision_tower\.(vision_model\.)?": "model.vision_tower.",
    r"^multi_modal_projector\.": "model.multi_modal_projector.",
}

_ARCHITECTURES: dict[str, Architecture] = {
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "smollm3"), _decoder(_SELF, _GATED)
    ),
    "mixtral": replace(
        _decoder(_SELF, _EXPERTS),
        stored_names={r"\.block_sparse_moe\.gate\.": ".mlp.gate."},
        stored_apart=r"\.block_sparse_moe\.experts\.",
    ),
    "olmo2": _decoder(_OLMO2, _GATED),
    "phi3": _decoder(_PHI3, _FUSED_GATED),
    "gemma3": replace(_decoder(_SELF, _GATED, "model.language_model"), stored_names=_GEMMA3_STORED),
    "opt": _decoder(_OPT, _PLAIN, "model.decoder"),
    "gpt2": Architecture(
        "transformer.wte.weight",
        "lm_head.weight",
        stacks=(Stack("transformer.h", (_GPT2,), (FeedForward(("mlp.c_fc",), "mlp.c_proj"),), transposed=True),),
    ),
    "bloom": Architecture(
        "transformer.word_embeddings.weight", "lm_head.weight", stacks=(Stack("transformer.h", (_BLOOM,), (_FOUR_H,)),)
    ),
    "gpt_neox": Architecture(
        "gpt_neox.embed_in.weight",
        "lm_head.weight",
        {r"^embed_out\.": "lm_head."},
        (Stack("gpt_neox.layers", (_GPT_NEOX,), (_FOUR_H,)),),
    ),
    "bert": _bert("bert", "cls.predictions.decoder.weight"),
    **dict.fromkeys(("roberta", "xlm-roberta"), _bert("roberta", "lm_head.decoder.weight")),
    "deberta-v2": _bert("deberta", "cls.predictions.decoder.weight", "query_proj key_proj value_proj"),
    "distilbert": Architecture(
        "distilbert.embeddings.word_embeddings.weight",
        "vocab_projector.weight",
        stacks=(Stack("distilbert.transformer.layer", (_DISTILBERT,), (FeedForward(("ffn.lin1",), "ffn.lin2"),)),),
    ),
    **dict.fromkeys(("t5", "mt5"), _t5()),
    **dict.fromkeys(("bart", "mbart", "marian"), _bart()),
    "vit": Architecture("", "", _VIT_STORED, (Stack("vit.layers", (_VIT,), (FeedForward(("mlp.fc1",), "mlp.fc2"),)),)),
}

_HOW_TO_REGISTER = """from ks_lottery.units.architecture import Architecture, register_architecture
from ks_lottery.units.stack import Attention, FeedForward, Stack

attention = Attention("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
feed_forward = FeedForward(("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj")
blocks = Stack("model.layers", (attention,), (feed_forward,))
register_architecture({model_type!r}, Architecture(
    "model.embed_tokens.weight", "lm_head.weight", stacks=(blocks,)
))"""


def architecture(model_type: str) -> Architecture:
    """Look up the names of a model type.

    Raises:
        UnknownNameError: if the type is not in the table; the message holds the code that adds it.
    """
    if model_type not in _ARCHITECTURES:
        raise UnknownNameError(
            f"Unknown architecture {model_type!r}; known: {', '.join(sorted(_ARCHITECTURES))}. Add it with the names "
            f"that model.named_parameters() shows; for one that spells them as Llama does:\n\n"
            f"{_HOW_TO_REGISTER.format(model_type=model_type)}"
        )
    return _ARCHITECTURES[model_type]


def architectures() -> tuple[str, ...]:
    """All model types of the table in alphabetical order."""
    return tuple(sorted(_ARCHITECTURES))


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
    names = _ARCHITECTURES.get(model_type)
    renamed = {name: name for name in stored}
    if names is None:
        return renamed
    for pattern, replacement in names.stored_names.items():
        renamed = {name: re.sub(pattern, replacement, live) for name, live in renamed.items()}
    anchors = (names.input_embedding, *(stack.blocks for stack in names.stacks))
    first, _, rest = next(filter(None, anchors), "").partition(".")
    present = renamed.values()
    bare = bool(rest) and any(name.startswith(rest) for name in present)
    bare = bare and not any(name.startswith(f"{first}.") for name in present)
    if not bare:
        return renamed
    return {name: live if live == names.output_head else f"{first}.{live}" for name, live in renamed.items()}
