"""What the blocks of a transformer consist of: the words in which the table of architectures is written.

Names of projections are relative to the block and leave out ".weight" and ".bias": "self_attn.q_proj".
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attention:
    """One attention sublayer.

    Attributes:
        query: projection whose outputs are the query heads, one after the other.
        key: projection to key heads; the same name as `query` and `value` where one matrix holds all three.
        value: projection to value heads.
        output: projection whose inputs are the heads' outputs.
        interleaved: order within one matrix for all three. True: the queries, key and value of the first head, then of
            the second (GPT-NeoX, BLOOM). False: all queries, then all keys, then all values (GPT-2, Phi-3).
        beside_query: further parameters, where the model has them, with one slice for each query head. A norm that
            all heads share is none of them: it belongs to no head.
        beside_key: the same for key heads.
        group: what the unit group is called: "heads", or "cross_heads" where keys come from the encoder.
        heads: key of the configuration that counts query heads.
        kv_heads: key that counts key/value heads; a configuration without it has as many as query heads.
        head_dim: key that says how wide a head is; a configuration without it divides the width of `output`.
    """

    query: str
    key: str
    value: str
    output: str
    interleaved: bool = False
    beside_query: tuple[str, ...] = ()
    beside_key: tuple[str, ...] = ()
    group: str = "heads"
    heads: str = "num_attention_heads"
    kv_heads: str = "num_key_value_heads"
    head_dim: str = "head_dim"


@dataclass(frozen=True, slots=True)
class FeedForward:
    """The feed-forward sublayer, or all experts of a mixture.

    Attributes:
        inputs: projections whose outputs are the neurons: ("mlp.gate_proj", "mlp.up_proj") or ("mlp.fc1",).
        output: projection whose inputs are the neurons.
        halves: whether the one input projection holds first all gates, then all ups.
        experts: whether the parameters have a leading dimension of experts.
    """

    inputs: tuple[str, ...]
    output: str
    halves: bool = False
    experts: bool = False


@dataclass(frozen=True, slots=True)
class Stack:
    """Blocks of the same form, one on top of the other. How many there are is read off the parameter names.

    Attributes:
        blocks: name of the list of blocks in a model with a head ("model.layers", "bert.encoder.layer"). The bare model
            has the same name without its first part.
        attention: attention sublayers of each block.
        feed_forward: what each block may have as feed-forward sublayer; the first one that is there counts.
        name: "encoder" or "decoder" where a model can have both, else empty.
        transposed: whether matrices are stored [inputs, outputs], as GPT-2's are.
    """

    blocks: str
    attention: tuple[Attention, ...]
    feed_forward: tuple[FeedForward, ...]
    name: str = ""
    transposed: bool = False
