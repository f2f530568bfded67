"""Two matrices as a fine-tuning leaves them: normal weights, some rows of them moved."""

from dataclasses import dataclass

import numpy as np
import torch

_BLOCK = 2048  # rows that are drawn at once


@dataclass(frozen=True, slots=True)
class WeightPair:
    """Weights before and after.

    Attributes:
        before: [rows, d].
        after: the same shape and dtype.
        dtype: as torch spells it.
        share: of the rows that differ.
    """

    before: torch.Tensor
    after: torch.Tensor
    dtype: str
    share: float


def weight_pair(rows: int, d: int, dtype: str, share: float, seed: int = 0) -> WeightPair:
    """Draw weights of standard deviation 0.02; changed rows move by 3 % to 100 % of that, each by its own size.

    Args:
        rows: of each matrix.
        d: values per row.
        dtype: "float32" or "bfloat16".
        share: of changed rows; one of every 1 / share neighbours is changed, so every part holds the same share.
        seed: of numpy's generator.
    """
    generator = np.random.default_rng(seed)
    before = torch.empty(rows, d, dtype=getattr(torch, dtype))
    after = torch.empty_like(before)
    every = round(1.0 / share)
    for start in range(0, rows, _BLOCK):
        count = min(_BLOCK, rows - start)
        values = generator.standard_normal((count, d), dtype=np.float32) * 0.02
        before[start : start + count] = torch.from_numpy(values)
        moved = np.flatnonzero((np.arange(start, start + count) % every) == 0)
        size = 0.02 * generator.uniform(0.03, 1.0, (len(moved), 1)).astype(np.float32)
        values[moved] += size * generator.standard_normal((len(moved), d), dtype=np.float32)
        after[start : start + count] = torch.from_numpy(values)
    return WeightPair(before, after, dtype, share)
