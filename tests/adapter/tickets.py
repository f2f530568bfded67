"""Tickets drawn by hand, and adapters with random values, for tiny models."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from ks_lottery.adapter.attach import attach_ticket
from ks_lottery.checkpoints.reader import ModelCheckpoint
from ks_lottery.ticket.identity import identify
from ks_lottery.ticket.ticket import Provenance, Selection, Ticket
from ks_lottery.units.slab import parameters_of
from ks_lottery.units.token_rows import TokenRows
from tests.tiny_models import VOCABULARY, WIDTH, tiny_llama

INPUT_ROWS = [0, 7, 9, 31, 63]
OUTPUT_ROWS = [1, 7, 62]
KINDS = [(False, "input"), (False, "output"), (False, "both"), (True, None)]
"""(tied, ends) of every way in which a llama's token rows can be chosen."""


def tiny_gpt2() -> PreTrainedModel:
    """A tied GPT-2 of two layers, with Conv1D layers in its body."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=2, n_head=2, n_positions=32, bos_token_id=1, eos_token_id=2
    )
    return GPT2LMHeadModel(config).eval()


def saved_llama(folder: Path, tied: bool = False, dtype: torch.dtype = torch.float32) -> Path:
    """A folder below `folder` with a saved llama."""
    base = folder / f"base-{'tied' if tied else 'untied'}-{str(dtype).rpartition('.')[-1]}"
    if not base.exists():
        tiny_llama(tied=tied, dtype=dtype).save_pretrained(base)
    return base


def make_ticket(
    model: nn.Module, ends: str | None = None, rows: Sequence[Sequence[int]] = (INPUT_ROWS, OUTPUT_ROWS)
) -> Ticket:
    """A ticket for this model, with the given rows of the input embedding and of the output head."""
    checkpoint = ModelCheckpoint(model)
    groups = TokenRows(ends).groups(checkpoint.layout())  # type: ignore[arg-type]
    chosen = dict(zip(("input", "output"), rows, strict=False))
    selections = {g.name: Selection(g, np.array(chosen.get(g.name, rows[0]))) for g in groups}
    base = identify(checkpoint, parameters_of(groups))
    return Ticket("update", "token_rows", selections, base, Provenance("by hand"))


def randomise(model: nn.Module, scale: float = 0.05, seed: int = 5) -> None:
    """Give every trainable parameter random values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))


def tuned(base: PreTrainedModel, ends: str | None = None, seed: int = 5) -> PeftModel:
    """A base model with an attached ticket whose deltas are random."""
    model = attach_ticket(base, make_ticket(base, ends))
    randomise(model, seed=seed)
    return model.eval()


def trainable(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters that require a gradient."""
    return {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every tensor of a model."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@torch.no_grad()
def logits(model: nn.Module, tokens: Tensor) -> Tensor:
    """[*tokens.shape, V] logits."""
    return model(input_ids=tokens).logits


def assert_same_logits(got: Tensor, expected: Tensor) -> None:
    """Equal to rounding: float32 to 1e-6, bfloat16 to two units in the last place of the largest logit."""
    tolerance = 1e-6 if expected.dtype == torch.float32 else 2 * float(expected.abs().max()) / 256
    assert float((got - expected).abs().max()) <= tolerance
