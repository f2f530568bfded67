"""The small tasks on which papers about tickets can be checked in seconds, as models that a stock Trainer trains."""

from itertools import pairwise

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ModelOutput, SequenceClassifierOutput

from ks_lottery.units.slab import Slab, UnitGroup


class PerceptronConfig(PreTrainedConfig):
    """Widths of the layers of a perceptron, input and output included."""

    model_type = "perceptron"

    def __init__(self, widths: tuple[int, ...] = (40, 64, 64, 2), bias: bool = True, **options) -> None:  # type: ignore[no-untyped-def]
        super().__init__(**options)
        self.widths = list(widths)
        self.bias = bias


class Perceptron(PreTrainedModel):
    """Linear layers with ReLU between them, and cross entropy."""

    config_class = PerceptronConfig

    def __init__(self, config: PerceptronConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(
            nn.Linear(inputs, outputs, config.bias) for inputs, outputs in pairwise(config.widths)
        )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=5**0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> SequenceClassifierOutput:
        """Logits of a batch [examples, inputs], and the loss if there are labels."""
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        logits = self.layers[-1](x)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


class NeuronConfig(PreTrainedConfig):
    """Number of inputs of a neuron."""

    model_type = "neuron"

    def __init__(self, inputs: int = 5, **options) -> None:  # type: ignore[no-untyped-def]
        super().__init__(**options)
        self.inputs = inputs


class Neuron(PreTrainedModel):
    """f(x) = a relu(w x), which is to learn relu(x_1) and begins with w_1 < 0.

    Source:
        Gadhikar & Burkholz 2024, arXiv 2402.19262, figure 1.
    """

    config_class = NeuronConfig

    def __init__(self, config: NeuronConfig) -> None:
        super().__init__(config)
        self.w = nn.Parameter(torch.zeros(1, config.inputs))
        self.a = nn.Parameter(torch.tensor(0.5))
        self.post_init()

    def forward(self, x: torch.Tensor) -> ModelOutput:
        """Squared error over all points of a batch [1, points, inputs]: a step is one of full-batch descent."""
        points = x[0]
        error = self.a * torch.relu(points @ self.w[0]) - torch.relu(points[:, 0])
        return ModelOutput(loss=error.square().mean())


AutoConfig.register("perceptron", PerceptronConfig, exist_ok=True)
AutoConfig.register("neuron", NeuronConfig, exist_ok=True)


def perceptron(seed: int = 0, widths: tuple[int, ...] = (40, 64, 64, 2), bias: bool = True) -> Perceptron:
    """A new perceptron; the same seed gives the same weights."""
    torch.manual_seed(seed)
    return Perceptron(PerceptronConfig(widths, bias))


def neuron(inputs: int, seed: int) -> Neuron:
    """A neuron whose first weight has the wrong sign."""
    model = Neuron(NeuronConfig(inputs))
    with torch.no_grad():
        model.w.copy_(0.5 * torch.randn(1, inputs, generator=torch.Generator().manual_seed(seed)))
        model.w[0, 0] = -model.w[0, 0].abs() - 0.05
    return model


def matrices(model: nn.Module) -> tuple[UnitGroup, ...]:
    """Every weight of every matrix as a unit."""
    return tuple(
        UnitGroup(name, (Slab(name, None),), value.numel())
        for name, value in model.named_parameters()
        if value.dim() == 2
    )


def products(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """X in R^40, label 1[x0 x1 + x2 x3 > 0]: four inputs of forty matter."""
    x = torch.randn(count, 40, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] * x[:, 1] + x[:, 2] * x[:, 3] > 0).long()


def taught(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """X in R^20, labelled with 10 classes by a perceptron of two layers of 32 with doubled weights."""
    teacher = perceptron(seed + 1000, (20, 32, 32, 10))
    x = torch.randn(count, 20, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for weight in teacher.parameters():
            if weight.dim() == 2:
                weight.mul_(2)
        return x, teacher(x).logits.argmax(-1)


def examples(x: torch.Tensor, labels: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    """One mapping per example, as a Trainer wants them."""
    return [{"x": one, "labels": label} for one, label in zip(x, labels, strict=True)]


def accuracy(model: Perceptron, x: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of examples whose largest logit is their label's."""
    with torch.no_grad():
        return float((model(x).logits.argmax(-1) == labels).float().mean())
