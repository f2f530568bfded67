"""Masks learnt over random heads whose W_Q and W_K are drawn at several scales: does n^(1/4) help there too?

The task is recall. A sequence holds pairs of a key (a random direction) and a value; its last token holds one of the
keys, and the answer is the value that belongs to it. Heads are random and frozen, and a score for each weight is
trained: the forward pass keeps the weights with the largest scores of each matrix, and the gradient of a kept or
dropped weight goes straight through to its score.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

WIDTH, PAIRS, HEADS, N = 4, 6, 2, 64
EMBEDDING = 3 * WIDTH
DENSITY = 0.3


class _Largest(torch.autograd.Function):
    """A mask of the `count` largest scores; gradients of the mask become those of the scores."""

    @staticmethod
    def forward(context: Any, scores: Tensor, count: int) -> Tensor:
        """Zeros, and ones at the largest scores."""
        mask = torch.zeros(scores.numel())
        mask[scores.flatten().topk(count).indices] = 1.0
        return mask.view_as(scores)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Straight through."""
        return gradients[0], None


class RecallHeads(nn.Module):
    """Attention of `HEADS` heads of width `N` over random weights; trained are scores, or the weights themselves.

    Args:
        scale: entries of W_Q and W_K come from U[-scale, scale], those of W_V and W_O from U[-1, 1].
        seed: of the draw.
        masked: train scores of a mask that keeps the share `DENSITY` of each matrix, and leave the weights as drawn.
            Otherwise train the weights.
    """

    def __init__(self, scale: float, seed: int, *, masked: bool) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        shapes = {"query": (EMBEDDING, N), "key": (EMBEDDING, N), "value": (EMBEDDING, N), "output": (N, WIDTH)}
        self.weights, self.scores = nn.ParameterDict(), nn.ParameterDict()
        for name, shape in shapes.items():
            values = 2 * torch.rand(HEADS, *shape, generator=draw) - 1
            self.weights[name] = nn.Parameter(
                scale * values if name in ("query", "key") else values, requires_grad=not masked
            )
            if masked:
                self.scores[name] = nn.Parameter(torch.rand(HEADS, *shape, generator=draw))

    def forward(self, tokens: Tensor) -> Tensor:
        """[examples, T, EMBEDDING] to the [examples, WIDTH] answer at the last token."""
        query, key, value, output = (self._kept(name) for name in ("query", "key", "value", "output"))
        tokens = tokens[:, None]
        logits = (tokens[:, :, -1:] @ query) @ (tokens @ key).transpose(-1, -2) / math.sqrt(N)
        seen = logits.softmax(dim=-1) @ (tokens @ value)
        # The sum over N columns: this keeps the answer near 1 at the start.
        return (seen @ output).sum(dim=(1, 2)) / math.sqrt(N)

    def _kept(self, name: str) -> Tensor:
        weight: Tensor = self.weights[name]
        if name not in self.scores:
            return weight
        return weight * _Largest.apply(self.scores[name], round(DENSITY * weight.numel()))


def recall(examples: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sequences of `PAIRS` pairs and a question, and their answers.

    Returns:
        [examples, PAIRS + 1, EMBEDDING]: key, value and question side by side, and [examples, WIDTH].
    """
    keys = nn.functional.normalize(torch.randn(examples, PAIRS, WIDTH, generator=draw), dim=-1) * math.sqrt(WIDTH)
    values = torch.randn(examples, PAIRS, WIDTH, generator=draw)
    asked = torch.randint(PAIRS, (examples,), generator=draw)
    rows = torch.arange(examples)
    tokens = torch.zeros(examples, PAIRS + 1, EMBEDDING)
    tokens[:, :PAIRS, :WIDTH], tokens[:, :PAIRS, WIDTH : 2 * WIDTH] = keys, values
    tokens[:, PAIRS, 2 * WIDTH :] = keys[rows, asked]
    return tokens, values[rows, asked]


def recall_loss(scale: float, seed: int, steps: int, *, masked: bool = True) -> float:
    """Loss on fresh examples after training, as a share of the answers' variance.

    Args:
        scale: of W_Q and W_K.
        seed: of weights, scores and examples.
        steps: of Adam at a rate of 0.01 that falls to 0 along a cosine, 128 examples each.
        masked: as in `RecallHeads`.
    """
    model = RecallHeads(scale, seed, masked=masked)
    draw = torch.Generator().manual_seed(1000 + seed)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        tokens, answers = recall(128, draw)
        loss = (model(tokens) - answers).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    tokens, answers = recall(4096, torch.Generator().manual_seed(2000 + seed))
    with torch.no_grad():
        return float((model(tokens) - answers).square().mean() / answers.var())


def losses_by_scale(scales: Iterable[float], seeds: Sequence[int], steps: int, *, masked: bool) -> list[list[float]]:
    """`recall_loss` of every seed at every scale."""
    return [[recall_loss(scale, seed, steps, masked=masked) for seed in seeds] for scale in scales]
