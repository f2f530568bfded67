"""Write two checkpoints of a Llama that was never trained: sharded safetensors, 5 % of the rows of every matrix moved.

    python benchmarks/checkpoint_pair.py FOLDER --bytes 2e9 --dtype bfloat16

`FOLDER/before`, `FOLDER/after`, and `FOLDER/pair.json`, which says how many rows of each tensor were moved, and what
scipy's statistic of one tensor is.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from scipy.stats import ks_2samp
from weight_pair import weight_pair

from ks_lottery.checkpoints.writer import atomic_folder, write_json

SHARE = 0.05
TESTED = "model.layers.0.self_attn.q_proj.weight"
_SHARDS = 4


def main() -> None:
    """Write the pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bytes", type=float, required=True, help="size of both checkpoints together")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), required=True, help="of all tensors")
    options = parser.parse_args()
    write_pair(options.folder, options.bytes, options.dtype)


def write_pair(folder: Path, total_bytes: float, dtype: str) -> None:
    """Write the pair as one folder, whole or not at all.

    Args:
        folder: replaced if it is there.
        total_bytes: of both sides; met to within one layer.
        dtype: of all tensors.
    """
    config = llama_config(total_bytes, dtype)
    shapes = tensor_shapes(config)
    names = list(shapes)
    per_shard = -(-len(names) // _SHARDS)
    moved: dict[str, int] = {}
    statistic = 0
    with atomic_folder(folder) as temporary:
        for side in ("before", "after"):
            (temporary / side).mkdir()
            write_json(temporary / side / "config.json", config)
        weight_map: dict[str, str] = {}
        for number in range(_SHARDS):
            some = names[number * per_shard : (number + 1) * per_shard]
            file = f"model-{number + 1:05d}-of-{_SHARDS:05d}.safetensors"
            weight_map.update(dict.fromkeys(some, file))
            sides: dict[str, dict[str, torch.Tensor]] = {"before": {}, "after": {}}
            for name in some:
                sides["before"][name], sides["after"][name] = draw(shapes[name], dtype, seed=names.index(name))
                before, after = (torch.atleast_2d(sides[side][name]) for side in sides)
                moved[name] = int((before != after).any(dim=1).sum())
                if name == TESTED:
                    statistic = scipy_statistic(before, after)
            for side, tensors in sides.items():
                save_file(tensors, temporary / side / file)
        for side in ("before", "after"):
            index = {"metadata": {}, "weight_map": weight_map}
            write_json(temporary / side / "model.safetensors.index.json", index)
        known = {"dtype": dtype, "moved_rows": moved, "scipy": {TESTED: statistic}}
        write_json(temporary / "pair.json", known)


def scipy_statistic(before: torch.Tensor, after: torch.Tensor) -> int:
    """All values of a tensor as one sample: h with D = h / number of values."""
    d = ks_2samp(before.float().numpy().ravel(), after.float().numpy().ravel(), method="asymp").statistic
    return round(float(d) * before.numel())


def llama_config(total_bytes: float, dtype: str) -> dict[str, Any]:
    """Configuration of a Llama whose two checkpoints have about that size; wide if that leaves a few layers."""
    values = total_bytes / 2 / (2 if dtype == "bfloat16" else 4)
    hidden = next((width for width in (2048, 512, 128) if values > 50 * width**2), 64)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": 11 * hidden // 4,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": hidden // 64,
        "num_hidden_layers": 1,
        "vocab_size": 16 * hidden,
        "tie_word_embeddings": False,
        "torch_dtype": dtype,
    }
    one = sum(_size(shape) for shape in tensor_shapes(config).values())
    two = sum(_size(shape) for shape in tensor_shapes(config | {"num_hidden_layers": 2}).values())
    config["num_hidden_layers"] = max(1, 1 + round((values - one) / (two - one)))
    return config


def tensor_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name to shape of every tensor, in the order of the files."""
    return dict(_shapes(config))


def _shapes(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    yield "model.embed_tokens.weight", (vocabulary, hidden)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        for projection in ("q_proj", "k_proj", "v_proj", "o_proj"):
            yield f"{prefix}.self_attn.{projection}.weight", (hidden, hidden)
        for projection in ("gate_proj", "up_proj"):
            yield f"{prefix}.mlp.{projection}.weight", (inner, hidden)
        yield f"{prefix}.mlp.down_proj.weight", (hidden, inner)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{prefix}.{norm}.weight", (hidden,)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (vocabulary, hidden)


def draw(shape: tuple[int, ...], dtype: str, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A tensor before and after; vectors are ones and stay."""
    if len(shape) == 1:
        ones = torch.ones(shape, dtype=getattr(torch, dtype))
        return ones, ones.clone()
    pair = weight_pair(shape[0], shape[1], dtype, SHARE, seed)
    return pair.before, pair.after


def _size(shape: tuple[int, ...]) -> int:
    return shape[0] * (shape[1] if len(shape) > 1 else 1)


if __name__ == "__main__":
    main()
