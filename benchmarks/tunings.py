"""Ways to fine-tune one model that `step.py` and `prefix.py` time: ours, PEFT's, and dense gradients with masks."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft import LoraConfig, PeftModel, ShiraConfig, TrainableTokensConfig, get_peft_model, get_peft_model_state_dict
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from ks_lottery.adapter.config import LotteryConfig

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
LINEAR = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
HEADS = {1: (5,), 4: (1, 4, 7, 10)}
SHIRA_RANK = 32
LORA = "LoRA r=8, all"


@dataclasses.dataclass(frozen=True)
class Size:
    """The model and its batch."""

    vocabulary: int = 32000
    width: int = 768
    layers: int = 12
    inner: int = 2048
    batch: int = 4
    length: int = 128

    def model(self) -> LlamaForCausalLM:
        """A random Llama with 12 heads and separate embeddings; always the same weights."""
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=self.inner,
            num_hidden_layers=self.layers,
            num_attention_heads=12,
            tie_word_embeddings=False,
        )
        return LlamaForCausalLM(config).train()

    def tokens(self) -> Tensor:
        """[batch, length] token ids; every eighth is one of the first 18."""
        tokens = torch.randint(self.vocabulary, (self.batch, self.length), generator=torch.Generator().manual_seed(1))
        tokens[:, ::8] %= 18
        return tokens


QUICK = Size(vocabulary=500, width=96, layers=2, inner=128, batch=2, length=16)


@dataclasses.dataclass
class Tuning:
    """A model with what it trains."""

    model: nn.Module
    masks: dict[nn.Parameter, Tensor] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4) if self.trained else None

    def backward(self, tokens: Tensor) -> float:
        """Forward and backward; returns the loss."""
        loss: Tensor = self.model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        for parameter, mask in self.masks.items():
            assert parameter.grad is not None
            parameter.grad *= mask
        return float(loss.detach())

    def step(self, tokens: Tensor) -> None:
        """Forward, backward, update."""
        self.backward(tokens)
        if self.optimizer is not None:
            self.optimizer.step()
            self.optimizer.zero_grad()

    def file_bytes(self) -> int:
        """Size of what has to be kept: the adapter, or the trained parameters."""
        kept: Sequence[Tensor] = self.trained
        if isinstance(self.model, PeftModel):
            kept = list(get_peft_model_state_dict(self.model, save_embedding_layers=False).values())
        return sum(tensor.numel() * tensor.element_size() for tensor in kept)


def frozen(base: LlamaForCausalLM) -> Tuning:
    """Forward and activation gradient alone."""
    base.requires_grad_(False)
    base.get_input_embeddings().register_forward_hook(lambda module, inputs, output: output.requires_grad_())
    return Tuning(base)


def dense(*names: str) -> Callable[[LlamaForCausalLM], Tuning]:
    """Train whole parameters: those whose names hold one of the given ones."""

    def build(base: LlamaForCausalLM) -> Tuning:
        for name, parameter in base.named_parameters():
            parameter.requires_grad_(any(part in name for part in names))
        return Tuning(base)

    return build


def adapter(make: Callable[[LlamaForCausalLM], Any]) -> Callable[[LlamaForCausalLM], Tuning]:
    """Train a PEFT adapter, ours or another."""
    return lambda base: Tuning(get_peft_model(base, make(base)).train())


def rows(count: int) -> Callable[[LlamaForCausalLM], LotteryConfig]:
    """Ours: the first rows of the input embedding."""
    return lambda base: LotteryConfig(
        positions={"model.embed_tokens": range(min(count, base.config.vocab_size))}, task_type="CAUSAL_LM"
    )


def head_slices(base: LlamaForCausalLM, count: int) -> list[int]:
    """Rows of the query, key and value projections, and columns of the output projection, that belong to heads."""
    width = base.config.hidden_size // 12
    return [index for head in HEADS[count] for index in range(head * width, (head + 1) * width)]


def heads(count: int) -> Callable[[LlamaForCausalLM], LotteryConfig]:
    """Ours: heads of every layer."""

    def make(base: LlamaForCausalLM) -> LotteryConfig:
        chosen = head_slices(base, count)
        places = [f"model.layers.{layer}.self_attn." for layer in range(base.config.num_hidden_layers)]
        return LotteryConfig(
            positions={f"{place}{name}": chosen for place in places for name in ATTENTION[:3]},
            column_positions={f"{place}o_proj": chosen for place in places},
            task_type="CAUSAL_LM",
        )

    return make


def masked_heads(base: LlamaForCausalLM) -> Tuning:
    """One head of every layer with dense gradients that are masked."""
    method = dense(*ATTENTION)(base)
    chosen = torch.tensor(head_slices(base, 1))
    for name, parameter in base.named_parameters():
        if parameter.requires_grad:
            mask = torch.zeros_like(parameter, dtype=torch.bool)
            method.masks[parameter] = mask.index_fill_(1 if "o_proj" in name else 0, chosen, True)
    return method


def shira_rank(base: LlamaForCausalLM) -> int:
    """SHiRA's option that says how many weights it trains: this times (inputs + outputs) of each matrix."""
    return min(SHIRA_RANK, base.config.hidden_size // 4)


def shira_places(base: LlamaForCausalLM, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """As many random places of a matrix as SHiRA trains, sorted."""
    count = shira_rank(base) * (shape[0] + shape[1])
    return torch.randperm(shape[0] * shape[1], generator=generator)[:count].sort().values


def entries(names: Sequence[str]) -> Callable[[LlamaForCausalLM], LotteryConfig]:
    """Ours: single weights, as many as SHiRA's."""

    def make(base: LlamaForCausalLM) -> LotteryConfig:
        generator = torch.Generator().manual_seed(2)
        return LotteryConfig(
            entry_positions={
                name: shira_places(base, parameter.shape, generator).numpy()
                for name, parameter in base.named_parameters()
                if any(part in name for part in names)
            },
            task_type="CAUSAL_LM",
        )

    return make


def masked_entries(base: LlamaForCausalLM) -> Tuning:
    """SHiRA's number of single weights with dense gradients that are masked."""
    method, generator = dense(*LINEAR)(base), torch.Generator().manual_seed(2)
    for parameter in method.trained:
        mask = torch.zeros(parameter.numel(), dtype=torch.bool)
        mask[shira_places(base, parameter.shape, generator)] = True
        method.masks[parameter] = mask.view_as(parameter)
    return method


def shira(names: Sequence[str]) -> Callable[[LlamaForCausalLM], ShiraConfig]:
    """PEFT's sparse method with random places."""
    return lambda base: ShiraConfig(
        r=shira_rank(base),
        target_modules=list(names),
        mask_type="random",
        random_seed=0,
        task_type="CAUSAL_LM",
    )


def trainable_tokens(count: int) -> Callable[[LlamaForCausalLM], TrainableTokensConfig]:
    """PEFT's method for token rows."""
    return lambda base: TrainableTokensConfig(
        token_indices=list(range(min(count, base.config.vocab_size))), task_type="CAUSAL_LM"
    )


TUNINGS: dict[str, Callable[[LlamaForCausalLM], Tuning]] = {
    "limit": frozen,
    "full": dense(""),
    "embedding": dense("embed_tokens"),
    "rows 18": adapter(rows(18)),
    "rows 1000": adapter(rows(1000)),
    "TrainableTokens 18": adapter(trainable_tokens(18)),
    "TrainableTokens 1000": adapter(trainable_tokens(1000)),
    LORA: adapter(lambda base: LoraConfig(r=8, target_modules=list(LINEAR), task_type="CAUSAL_LM")),
    "heads 1 of 12": adapter(heads(1)),
    "heads 4 of 12": adapter(heads(4)),
    "heads 1 of 12, dense + mask": masked_heads,
    "entries q,v": adapter(entries(("q_proj", "v_proj"))),
    "SHiRA q,v": adapter(shira(("q_proj", "v_proj"))),
    "entries all": adapter(entries(LINEAR)),
    "SHiRA all": adapter(shira(LINEAR)),
    "entries all, dense + mask": masked_entries,
}
