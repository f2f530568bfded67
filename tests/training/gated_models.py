"""Tiny transformers with heads and neurons to gate, and what they train on."""

import copy
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.training.runs import TrainerRuns, trainer_runs
from ks_lottery.units.granularity import granularity
from ks_lottery.units.slab import UnitGroup
from tests.training.perceptron import arguments
from tests.units.models import tiny

DEAD = ((0, 1), (2, 3))
"""Layer and head of the two heads of `bert` that add nothing and never will."""


def bert(seed: int = 0) -> PreTrainedModel:
    """Three layers of four heads; the output weights of two heads are zero and get no gradient."""
    torch.manual_seed(seed)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=20, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64,
            max_position_embeddings=16, num_labels=2, pad_token_id=0,
        )
    )  # fmt: skip
    for layer, head in DEAD:
        weight = model.get_parameter(f"bert.encoder.layer.{layer}.attention.output.dense.weight")
        alive = torch.ones_like(weight)
        alive[:, 8 * head : 8 * head + 8] = 0.0
        with torch.no_grad():
            weight.mul_(alive)
        weight.register_hook(alive.mul)
    return model


def llama() -> PreTrainedModel:
    return copy.deepcopy(tiny("llama"))


def sentences(count: int = 512) -> list[dict[str, torch.Tensor]]:
    """Label 1 where most tokens have a large number."""
    tokens = torch.randint(1, 20, (count, 8), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": one, "labels": ((one >= 10).sum() > 4).long()} for one in tokens]


def texts(count: int = 64) -> list[dict[str, torch.Tensor]]:
    return [{"input_ids": one["input_ids"], "labels": one["input_ids"]} for one in sentences(count)]


def bert_runs(folder: Path, seed: int = 0, **options) -> TrainerRuns:
    settings = {"learning_rate": 1e-3, "per_device_train_batch_size": 64, **options}
    return trainer_runs(folder, lambda: bert(seed), sentences(), lambda place: arguments(place, **settings))


def llama_runs(folder: Path, **options) -> TrainerRuns:
    settings = {"learning_rate": 1e-3, "per_device_train_batch_size": 16, **options}
    return trainer_runs(folder, llama, texts(), lambda place: arguments(place, **settings))


def groups_of(model: PreTrainedModel, units: str) -> tuple[UnitGroup, ...]:
    return tuple(granularity(units).groups(open_checkpoint(model).layout()))
