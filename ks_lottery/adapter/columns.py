"""What changed slices of a linear layer's matrix do to its output.

A slice is a row or a column of the stored matrix. `nn.Linear` stores [outputs, inputs], so its rows are outputs (heads
in a query projection, neurons in an up projection) and its columns are inputs (heads in an output projection, neurons
in a down projection); GPT-2's `Conv1D` stores [inputs, outputs]. Both ways cost one small matrix product beside the
base layer's own, and its gradient is one more: nothing here is of the size of the matrix.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ks_lottery.adapter.parts import read_part, tuned_part
from ks_lottery.adapter.rows import RowChange, add_changes, union_index, wide_dtype
from ks_lottery.errors import AdapterError


def slice_differences(weight: Tensor, dim: int, changes: Sequence[RowChange]) -> tuple[Tensor, Tensor]:
    """How far changed slices are from the pretrained ones.

    In float32 that is the delta, and the matrix is not read. In bfloat16 and float16 the slices are rounded as merging
    would round them, with the gradient passed straight through that rounding: a delta that would be lost in merging
    does not act before.

    Args:
        weight: the pretrained matrix.
        dim: 0 for rows, 1 for columns.
        changes: applied in this order.

    Returns:
        [k] sorted positions, and [k, n] differences in float32 or wider; slices lie along the first dimension.

    Raises:
        AdapterError: if the matrix must be read, but is partitioned over processes.
    """
    index = union_index(changes)
    wide = wide_dtype(weight.dtype)
    if weight.dtype == wide:
        return index, total_delta(changes, index, wide)
    require_whole(weight)
    pretrained = read_part(weight, dim, index)
    tuned = tuned_part(pretrained, index, changes)
    rounding = (tuned.to(weight.dtype).to(wide) - tuned).detach()
    return index, tuned + rounding - pretrained.to(wide)


def total_delta(changes: Sequence[RowChange], index: Tensor, dtype: torch.dtype) -> Tensor:
    """[k, ...] sum of the deltas of changes, for the union of their positions."""
    delta = changes[0].delta.to(dtype)
    if len(changes) == 1:
        return delta
    return add_changes(delta.new_zeros(len(index), *delta.shape[1:]), index, changes)


def change_outputs(output: Tensor, hidden: Tensor, index: Tensor, difference: Tensor) -> Tensor:
    """Add what changed output slices contribute.

    Args:
        output: [..., outputs]; what the base layer gave; changed in place.
        hidden: [..., inputs]; the layer's input.
        index: [k] which outputs.
        difference: [k, inputs] from `slice_differences`.

    Returns:
        `output`.
    """
    part = F.linear(hidden, difference.to(hidden.dtype))
    return output.index_add_(-1, index, part.to(output.dtype))


def change_inputs(output: Tensor, hidden: Tensor, index: Tensor, difference: Tensor) -> Tensor:
    """Add what changed input slices contribute.

    Args:
        output: [..., outputs]; what the base layer gave; changed in place.
        hidden: [..., inputs]; the layer's input, of which only the `index` is kept for the backward pass.
        index: [k] which inputs.
        difference: [k, outputs] from `slice_differences`.

    Returns:
        `output`.
    """
    part = F.linear(hidden.index_select(-1, index), difference.T.to(hidden.dtype))
    return output.add_(part.to(output.dtype))


def require_whole(weight: Tensor) -> None:
    """Check that a matrix can be read in the forward pass.

    Raises:
        AdapterError: if DeepSpeed ZeRO-3 has partitioned it.
    """
    if weight.numel() == 0:
        raise AdapterError(
            "A matrix is partitioned (DeepSpeed ZeRO-3), and what the ticket changes in it must be read in every step. "
            "Train with ZeRO-2; slices, though not single weights, also train with ZeRO-3 on a float32 base model."
        )
