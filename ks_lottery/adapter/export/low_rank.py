"""The change of a linear layer as a product of two thin matrices, one of which picks rows or columns.

Changed rows are one-hot columns times their deltas, changed columns are their deltas times one-hot rows, and a sum of
products is one product of the matrices side by side. Single weights go with the rows, or the columns, that they lie in,
whichever are fewer. Nothing is lost: in the product every delta is multiplied by one and added to zeros.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ks_lottery.adapter.parts import BIAS, ENTRIES
from ks_lottery.adapter.rows import RowChange
from ks_lottery.adapter.tuned import TunedModule


@dataclass(frozen=True)
class LowRank:
    """What is added to a linear layer that computes `weight @ input + bias`.

    Attributes:
        down: [rank, inputs]; LoRA's A.
        up: [outputs, rank]; LoRA's B.
        bias: [outputs]; zero where the bias is not changed.
    """

    down: Tensor
    up: Tensor
    bias: Tensor


def rank_of(module: TunedModule) -> int:
    """Rank of `low_rank(module)`, without computing it."""
    rank = sum(len(part.index) for part in module.parts if part.kind.dim is not None)
    entries = module.part(ENTRIES)
    if entries is not None:
        rank += min(len(_places(entries.index, module.shape, dim).unique()) for dim in (0, 1))
    return max(1, rank)


def low_rank(module: TunedModule) -> LowRank:
    """Factors of what is changed in a module of the form "linear" or "conv1d"."""
    left, right = [], []
    for dim, change in _slices(module):
        size, count = module.shape[dim], len(change.index)
        one_hot = torch.zeros(size, count, dtype=change.delta.dtype)
        one_hot[change.index, torch.arange(count)] = 1.0
        left.append(one_hot if dim == 0 else change.delta.T)
        right.append(change.delta if dim == 0 else one_hot.T)
    stored_left, stored_right = torch.cat(left, dim=1), torch.cat(right, dim=0)
    transposed = module.form == "conv1d"
    outputs = module.shape[1 if transposed else 0]
    bias = torch.zeros(outputs, dtype=stored_left.dtype)
    part = module.part(BIAS)
    if part is not None:
        bias[part.index.cpu().to(torch.int64)] = part.deltas()
    if transposed:
        return LowRank(down=stored_left.T, up=stored_right.T, bias=bias)
    return LowRank(down=stored_right, up=stored_left, bias=bias)


def _slices(module: TunedModule) -> Iterator[tuple[int, RowChange]]:
    """What is changed in the weight, as rows (0) and columns (1) of the stored matrix; at least one."""
    some = False
    for part in module.parts:
        if part.kind.dim is not None:
            some = True
            yield part.kind.dim, RowChange(part.index.cpu(), part.deltas())
    entries = module.part(ENTRIES)
    if entries is not None:
        dim = min((0, 1), key=lambda dim: len(_places(entries.index, module.shape, dim).unique()))
        yield dim, _entry_slices(entries.index, entries.deltas(), module.shape, dim)
    elif not some:
        yield 0, RowChange(torch.zeros(1, dtype=torch.int64), torch.zeros(1, module.shape[1]))


def _places(index: Tensor, shape: tuple[int, ...], dim: int) -> Tensor:
    """[n] row (0) or column (1) of positions in a flattened matrix."""
    index = index.cpu().to(torch.int64)
    return index // shape[1] if dim == 0 else index % shape[1]


def _entry_slices(index: Tensor, deltas: Tensor, shape: tuple[int, ...], dim: int) -> RowChange:
    """The rows or columns in which single weights lie, zero elsewhere."""
    slices, slot = _places(index, shape, dim).unique(return_inverse=True)
    dense = torch.zeros(len(slices), shape[1 - dim], dtype=deltas.dtype)
    dense[slot, _places(index, shape, 1 - dim)] = deltas
    return RowChange(slices, dense)
