"""A plain multilayer perceptron as a transformers model: what the papers' toy tasks train, by a stock Trainer."""

from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, TrainingArguments
from transformers.modeling_outputs import SequenceClassifierOutput

from ks_lottery.training.arguments import probe_arguments
from ks_lottery.units.slab import Slab, UnitGroup


class PerceptronConfig(PreTrainedConfig):
    model_type = "perceptron"

    def __init__(self, widths: tuple[int, ...] = (40, 64, 64, 2), **options) -> None:
        super().__init__(**options)
        self.widths = list(widths)


AutoConfig.register("perceptron", PerceptronConfig, exist_ok=True)


class Perceptron(PreTrainedModel):
    config_class = PerceptronConfig

    def __init__(self, config: PerceptronConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(nn.Linear(rows, columns) for rows, columns in pairwise(config.widths))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=5**0.5)
            nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> SequenceClassifierOutput:
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        logits = self.layers[-1](x)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


def perceptron(seed: int = 0, widths: tuple[int, ...] = (40, 64, 64, 2)) -> Perceptron:
    torch.manual_seed(seed)
    return Perceptron(PerceptronConfig(widths))


def matrices(model: nn.Module) -> tuple[UnitGroup, ...]:
    """Every weight of every matrix as a unit."""
    return tuple(
        UnitGroup(name, (Slab(name, None),), value.numel())
        for name, value in model.named_parameters()
        if value.dim() == 2
    )


def products(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """x in R^40, label 1[x0 x1 + x2 x3 > 0]."""
    x = torch.randn(count, 40, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] * x[:, 1] + x[:, 2] * x[:, 3] > 0).long()


def examples(x: torch.Tensor, labels: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    return [{"x": one, "labels": label} for one, label in zip(x, labels, strict=True)]


def accuracy(model: Perceptron, x: torch.Tensor, labels: torch.Tensor) -> float:
    with torch.no_grad():
        return float((model(x).logits.argmax(-1) == labels).float().mean())


def arguments(folder: Path, **options) -> TrainingArguments:
    defaults = {
        "max_steps": 300, "learning_rate": 1e-2, "per_device_train_batch_size": 128, "use_cpu": True,
        "lr_scheduler_type": "constant", "warmup_steps": 0, "adam_beta2": 0.999, "save_strategy": "no",
        "logging_strategy": "no", "disable_tqdm": True, "remove_unused_columns": False,
    }  # fmt: skip
    return probe_arguments(folder, **{**defaults, **options})
