"""Models with batches of a task, for the finders that look at both."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from ks_lottery.checkpoints.reader import ModelCheckpoint
from ks_lottery.finders.base import Finder, UnitScores
from ks_lottery.finders.saliency.batches import Batches
from ks_lottery.units.granularity import Granularity, granularity
from ks_lottery.units.slab import Slab, UnitGroup
from tests.tiny_models import VOCABULARY, tiny_llama


def tiny_bert(dtype: torch.dtype = torch.float32) -> nn.Module:
    """A BERT classifier with dropout, 2 layers of width 32 and 4 heads, in training mode."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=32,
        num_labels=3,
        initializer_range=0.2,
    )
    return BertForSequenceClassification(config).to(dtype).train()


def tokens(seed: int, examples: int, length: int = 9) -> Tensor:
    """[examples, length] token ids of the lower half of the vocabulary."""
    return torch.randint(3, VOCABULARY // 2, (examples, length), generator=torch.Generator().manual_seed(seed))


def batches_for(case: str, sizes: tuple[int, ...] = (3, 2)) -> list[dict[str, Tensor]]:
    """Batches for a model of `MODELS`, of these numbers of examples."""
    found = []
    for seed, size in enumerate(sizes):
        ids = tokens(seed, size)
        labels = ids.clone() if case == "llama" else torch.arange(size) % 3
        if case == "llama":
            labels[:, :2] = -100
        found.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels})
    return found


MODELS = {"llama": tiny_llama, "bert": tiny_bert}


def evidence_of(case: str, **options: Any) -> Batches:
    """A fresh model with its batches."""
    return Batches(MODELS[case](**options), batches_for(case))


def groups_of(model: nn.Module, units: str | Granularity) -> tuple[UnitGroup, ...]:
    """All unit groups of a live model."""
    return tuple(granularity(units).groups(ModelCheckpoint(model).layout()))


def scores_of(finder: Finder, evidence: Batches, units: str | Granularity) -> list[UnitScores]:
    """All scores of a finder."""
    return list(finder.score(groups_of(evidence.model, units), evidence))


def mean_gradients(evidence: Batches) -> dict[str, Tensor]:
    """Gradient of the mean loss over the batches, by plain autograd, in evaluation mode."""
    model = evidence.model.eval()
    model.zero_grad()
    for batch in evidence.batches:
        (evidence.loss(model, batch) / len(evidence.batches)).backward()
    found = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in model.named_parameters()
    }
    model.zero_grad()
    return found


def chain(*widths: int, seed: int = 0, bias: bool = False) -> nn.Sequential:
    """Linear layers with ReLU between them, in float64."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs, bias=bias, dtype=torch.float64), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def every_weight(model: nn.Module) -> tuple[UnitGroup, ...]:
    """One group of single weights for each parameter of any module."""
    return tuple(
        UnitGroup(name, (Slab(name, None),), parameter.numel()) for name, parameter in model.named_parameters()
    )
