"""The change of linear layers as positions in their flattened matrices, as PEFT's sparse adapters hold it."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ks_lottery.adapter.export.carrier import name_refusal, tie_refusal
from ks_lottery.adapter.parts import BIAS
from ks_lottery.adapter.tuned import Tuned, TunedModule

_MOST_STEPS = 4
"""Each step is off by at most the rounding of its delta, a 256th in bfloat16: the fourth is near the tuned weight."""


@dataclass(frozen=True)
class SingleWeights:
    """Changed weights of one linear layer.

    Attributes:
        module: the layer.
        index: [n] int64; positions in the flattened [outputs, inputs] matrix.
        pretrained: [k] in the dtype of the matrix; values at the first k positions, among which is each one once.
        deltas: [n] float32 or wider; what is added; all deltas of a position, one after the other.
    """

    module: TunedModule
    index: Tensor
    pretrained: Tensor
    deltas: Tensor

    def padded(self, count: int) -> tuple[Tensor, Tensor]:
        """Positions and deltas, filled up to `count` with zeros at positions of its own.

        Further training moves the sum at each position, so it stays inside the ticket.
        """
        index = self.index.repeat(-(-count // len(self.index)))[:count]
        deltas = torch.zeros(count, dtype=self.deltas.dtype)
        deltas[: len(self.deltas)] = self.deltas
        return index, deltas

    def in_base_dtype(self) -> "SingleWeights":
        """The same change for an adapter that rounds deltas to the dtype of the matrix before it adds them.

        Where that misses the tuned weight, the position stands again, with what is left: added one after the other,
        with each sum rounded, the deltas of a position lead to its tuned weight. torch may add them in another way; the
        merged weight can then miss by one unit in the last place of a 16-bit dtype.
        """
        dtype, wide = self.pretrained.dtype, self.deltas.dtype
        tuned = (self.pretrained.to(wide) + self.deltas).to(dtype)
        steps = [(self.index, self.deltas)]
        missed, reached = torch.arange(len(self.index)), self.pretrained
        for _ in range(_MOST_STEPS):
            reached = reached + steps[-1][1].to(dtype)
            left = reached != tuned[missed]
            missed, reached = missed[left], reached[left]
            steps.append((self.index[missed], tuned[missed].to(wide) - reached.to(wide)))
        index, deltas = (torch.cat(tensors) for tensors in zip(*steps, strict=True))
        return SingleWeights(self.module, index, self.pretrained, deltas)


def vectors_of(tuned: Tuned) -> list[TunedModule]:
    """The norms among the changed modules, which sparse adapters hold as whole modules."""
    return [module for module in tuned.modules if module.form == "vectors"]


def single_weights(tuned: Tuned) -> list[SingleWeights]:
    """The changed weights of every linear layer, each position once."""
    return [_flattened(module) for module in tuned.modules if module.form != "vectors"]


def sparse_refusal(tuned: Tuned) -> str | None:
    """Why PEFT's sparse adapters cannot hold these values, or None if they can."""
    for module in tuned.modules:
        if module.form in ("embedding", "conv1d"):
            kind = "an embedding" if module.form == "embedding" else "a Conv1D layer"
            return f"it holds weights of nn.Linear, but {module.name!r} is {kind}"
        if module.form == "linear" and module.part(BIAS) is not None:
            return f"it holds weights of nn.Linear, but values of the bias of {module.name!r} are tuned"
        reason = tie_refusal(module)
        if reason is not None:
            return reason
    if len(vectors_of(tuned)) == len(tuned.modules):
        return "it holds weights of nn.Linear, of which none is tuned"
    return name_refusal(tuned.modules)


def _flattened(module: TunedModule) -> SingleWeights:
    index, pretrained, deltas = (torch.cat(tensors) for tensors in zip(*_pieces(module), strict=True))
    unique, slot = index.unique(return_inverse=True)
    return SingleWeights(
        module,
        unique,
        pretrained.new_zeros(len(unique)).index_copy(0, slot, pretrained),
        deltas.new_zeros(len(unique)).index_add(0, slot, deltas),
    )


def _pieces(module: TunedModule) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    outputs, inputs = module.shape
    for part in module.parts:
        index = part.index.cpu().to(torch.int64)
        if part.kind.dim == 0:
            index = index[:, None] * inputs + torch.arange(inputs)
        elif part.kind.dim == 1:
            index = index[:, None] + torch.arange(outputs) * inputs
        yield index.reshape(-1), part.pretrained.cpu().reshape(-1), part.deltas().reshape(-1)
