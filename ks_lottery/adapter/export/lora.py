"""One LORA adapter for everything: one-hot factors, token rows, and whole modules side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ks_lottery.adapter.export.carrier import (
    CARRIERS,
    Export,
    name_refusal,
    tie_refusal,
    token_refusal,
    whole_modules,
    write_adapter,
)
from ks_lottery.adapter.export.low_rank import low_rank, rank_of
from ks_lottery.adapter.parts import BIAS
from ks_lottery.adapter.tuned import PEFT_PREFIX, Tuned, TunedModule


@CARRIERS.register("lora")
class LoraCarrier:
    """Any ticket: each module as the smallest thing of PEFT's LORA that holds its change exactly.

    - rows of embeddings, and of output heads without a bias: `trainable_token_indices`, absolute rows;
    - parts of linear layers (heads, neurons, rows, columns, single weights): factors of which one is one-hot, with the
      number of slices as rank. In bfloat16 the merged weights are those of the ticket to the bit;
    - values of their biases: `lora_bias`, where every such layer has a bias, since PEFT merges no other;
    - norms, and linear layers of which so much is changed that factors would be larger than the matrix:
      `modules_to_save`.

    Loads with PEFT 0.15 or later. As a training configuration it is an ordinary LoRA: both factors would move.
    """

    def rank(self, export: Export) -> int | None:
        """After the carriers that keep further training inside the ticket."""
        return 2

    def refusal(self, export: Export) -> str | None:
        """See `Carrier`."""
        for module in export.tuned.modules:
            reason = token_refusal(module) if _is_tokens(module) else tie_refusal(module)
            if reason is not None:
                return reason
        return name_refusal(export.tuned.modules)

    def write(self, export: Export, folder: Path) -> None:
        """See `Carrier`."""
        plan = _plan(export.tuned)
        config: dict[str, Any] = {
            **export.header,
            "peft_type": "LORA",
            "r": 1,
            "lora_alpha": 1,
            "target_modules": "dummy-target-modules",
        }
        if plan.factors:
            config["target_modules"] = [module.name for module in plan.factors]
            ranks = {module.name: rank_of(module) for module in plan.factors}
            config |= {"rank_pattern": ranks, "alpha_pattern": ranks}
            config["fan_in_fan_out"] = any(module.form == "conv1d" for module in plan.factors)
        if plan.with_bias:
            config["lora_bias"] = True
        if plan.tokens:
            config["trainable_token_indices"] = {m.name: m.parts[0].index.tolist() for m in plan.tokens}
        whole_config, tensors = whole_modules(export.tuned, plan.whole)
        for module in plan.tokens:
            tensors[f"{PEFT_PREFIX}{module.name}.token_adapter.trainable_tokens_delta"] = module.parts[0].values()
        for module in plan.factors:
            tensors |= factor_tensors(module, plan.with_bias)
        write_adapter(folder, config | whole_config, tensors)


def factor_tensors(module: TunedModule, with_bias: bool) -> dict[str, Tensor]:
    """The LoRA weights of a linear layer, under their names in the file."""
    factors = low_rank(module)
    prefix = f"{PEFT_PREFIX}{module.name}"
    tensors = {f"{prefix}.lora_A.weight": factors.down, f"{prefix}.lora_B.weight": factors.up}
    return tensors | ({f"{prefix}.lora_B.bias": factors.bias} if with_bias else {})


@dataclass(frozen=True)
class _Plan:
    tokens: Sequence[TunedModule]
    factors: Sequence[TunedModule]
    whole: Sequence[TunedModule]
    with_bias: bool


def _plan(tuned: Tuned) -> _Plan:
    """What becomes of each module."""
    tokens = [module for module in tuned.modules if _is_tokens(module)]
    rest = [module for module in tuned.modules if not _is_tokens(module)]
    factors = [module for module in rest if module.form != "vectors" and _is_thin(module)]
    changed = [module for module in factors if module.part(BIAS) is not None]
    with_bias = bool(changed) and all(module.biased for module in factors)
    if not with_bias:
        factors = [module for module in factors if module not in changed]
    return _Plan(tokens, factors, [module for module in rest if module not in factors], with_bias)


def _is_tokens(module: TunedModule) -> bool:
    """Whether PEFT's token layer holds it: not where it would drop a bias, which factors keep."""
    untied_head = module.form == "linear" and not module.tied_modules
    return module.rows_alone and not (untied_head and module.biased)


def _is_thin(module: TunedModule) -> bool:
    return rank_of(module) * sum(module.shape) < math.prod(module.shape)
