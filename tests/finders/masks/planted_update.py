"""A known update: `after` moved every unit, the teacher that labels the batches only some of them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from ks_lottery.finders.base import UnitScores
from ks_lottery.finders.masks.frozen import Frozen
from ks_lottery.finders.masks.masked import masked
from ks_lottery.finders.saliency.batches import Batch
from ks_lottery.units.slab import UnitGroup
from tests.finders.saliency.models import groups_of

VOCABULARY = 64


@dataclass(frozen=True)
class PlantedUpdate:
    """What a finder gets, and what it has to find.

    Attributes:
        evidence: the base, batches with the teacher's logits, and `after`.
        groups: the units.
        truth: [units] bool over all groups.
    """

    evidence: Frozen
    groups: tuple[UnitGroup, ...]
    truth: np.ndarray


def to_teacher(model: nn.Module, batch: Batch) -> Tensor:
    """Mean squared distance to the teacher's logits."""
    distance: Tensor = (model(input_ids=batch["input_ids"]).logits - batch["teacher"]).square().mean()
    return distance


def planted_update(seed: int, units: str, density: float, batches: int = 16) -> PlantedUpdate:
    """A Llama of 2 layers and width 32 whose matrices are five times as large as usual, moved by +-.2 everywhere."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=16,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    after = LlamaForCausalLM(config).eval()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if ".layers." in name and value.dim() == 2:
                value.mul_(5)
            after.get_parameter(name).copy_(value)
            if ".layers." in name and value.dim() == 2:
                signs = torch.randint(0, 2, value.shape, generator=generator) * 2 - 1
                after.get_parameter(name).add_(0.2 * signs)
    groups = groups_of(model, units)
    total = sum(group.num_units for group in groups)
    truth = np.zeros(total, dtype=bool)
    truth[np.random.default_rng(seed).permutation(total)[: round(density * total)]] = True
    ids = torch.randint(0, VOCABULARY, (batches, 32, 16), generator=generator)
    plain = Frozen(model, [{"input_ids": ids[0]}], after=after)
    with masked(plain, groups, "update") as teacher, torch.no_grad():
        teacher.write(torch.from_numpy(truth).float())
        labelled = [{"input_ids": batch, "teacher": model(input_ids=batch).logits.clone()} for batch in ids]
    return PlantedUpdate(Frozen(model, labelled, loss=to_teacher, after=after), groups, truth)


def precision(entries: list[UnitScores], case: PlantedUpdate) -> float:
    """Share of the kept units that the teacher moved."""
    kept = np.concatenate([entry.columns["kept"] for entry in entries]).astype(bool)
    return float((kept & case.truth).sum() / kept.sum())
