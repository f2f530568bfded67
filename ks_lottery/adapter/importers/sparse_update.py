"""A sparse fine-tuning as it is read from a file: changes of single weights, and whole tensors beside them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ks_lottery.errors import CheckpointError


@dataclass(frozen=True)
class SparseChange:
    """Changed weights of one parameter.

    Attributes:
        shape: of the parameter, where the file says it; None where it does not.
        index: [n] int64; sorted and unique positions in the flattened parameter, last dimension fastest.
        delta: [n] float32; what is added to them.
    """

    shape: tuple[int, ...] | None
    index: np.ndarray
    delta: Tensor


@dataclass(frozen=True)
class SparseUpdate:
    """A sparse fine-tuning.

    Attributes:
        source: file or repository, for messages and provenance.
        method: what wrote it.
        changes: parameter name to what is added to its weights.
        whole: parameter name to its new value, for parameters that were trained whole; dense or sparse, of a shape
            that only the model can confirm.
    """

    source: str
    method: str
    changes: Mapping[str, SparseChange]
    whole: Mapping[str, Tensor] = field(default_factory=dict)


def sparse_change(
    source: str, parameter: str, index: np.ndarray, delta: Tensor, shape: tuple[int, ...] | None = None
) -> SparseChange:
    """Sort positions; deltas at the same position add up, as where they come from.

    Args:
        source: file, for messages.
        parameter: its name, for messages.
        index: [n] integers.
        delta: [n] float.
        shape: of the parameter, if known.

    Raises:
        CheckpointError: if positions are no integers, positions and deltas do not belong together, or a delta is no
            float or not finite.
    """
    if index.dtype.kind not in "iu" or not delta.is_floating_point():
        raise CheckpointError(
            f"{source!r} has positions of {index.dtype} and values of {delta.dtype} for {parameter!r}, which must be "
            "integers and floats; it is damaged."
        )
    numbers = index.astype(np.int64)
    if numbers.ndim != 1 or tuple(delta.shape) != numbers.shape:
        raise CheckpointError(
            f"{source!r} has positions of shape {numbers.shape} and values of shape {tuple(delta.shape)} for "
            f"{parameter!r}; it is damaged."
        )
    single = delta.detach().to(torch.float32)
    if not torch.isfinite(single).all():
        raise CheckpointError(f"{source!r} holds NaN or infinite values for {parameter!r}; it is damaged.")
    require_inside(source, parameter, numbers, shape)
    unique, slot = np.unique(numbers, return_inverse=True)
    total = torch.zeros(len(unique)).index_add_(0, torch.from_numpy(slot), single)
    return SparseChange(shape, unique, total)


def require_inside(source: str, parameter: str, index: np.ndarray, shape: tuple[int, ...] | None) -> None:
    """Check that positions lie in a parameter, as far as its shape is known; arguments as `sparse_change`.

    Raises:
        CheckpointError: if not.
    """
    size = np.inf if shape is None else math.prod(shape)
    if len(index) and not 0 <= index.min() <= index.max() < size:
        raise CheckpointError(
            f"{source!r} has positions from {index.min()} to {index.max()} for {parameter!r} of shape {shape}; it is "
            "damaged."
        )
