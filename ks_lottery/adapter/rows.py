"""What changed rows of a matrix do to its outputs: to embedded tokens, to logits, and to the matrix itself.

Rows are changed by *deltas*: a tuned row is `pretrained row + delta`, summed in float32 (or wider) and rounded once to
the dtype of the matrix. Every function here rounds at that same place, so a model with deltas beside its weights and
the same model with the deltas merged into them compute with identical rows, in float32 and in bfloat16. A zero delta is
the pretrained row, so weight decay on deltas pulls towards the pretrained model.

Nothing here is of the size of the matrix: cost and memory grow with the tokens at hand and the rows of the ticket.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class RowChange:
    """A change of some rows of one matrix.

    Attributes:
        index: [k] int64; which rows, sorted and unique.
        delta: [k, d] float32; what is added to each.
    """

    index: Tensor
    delta: Tensor


def find_rows(index: Tensor, wanted: Tensor) -> Tensor:
    """Look rows up in a sorted index.

    Args:
        index: [k] int64, sorted and unique, k >= 1.
        wanted: integer tensor of any shape.

    Returns:
        int64 tensor shaped like `wanted`: s with `index[s] == wanted`, or k where there is none.

    Cost:
        O(wanted * log k), stateless: 4 to 15 microseconds for 512 tokens, so no table over the vocabulary is kept.
    """
    wanted = wanted.to(index.dtype).contiguous()
    num_rows = index.shape[0]
    slot = torch.searchsorted(index, wanted)
    found = index[slot.clamp(max=num_rows - 1)] == wanted
    return torch.where(found, slot, num_rows)


def add_changes(rows: Tensor, index: Tensor, changes: Sequence[RowChange]) -> Tensor:
    """Tuned rows before rounding.

    Args:
        rows: [n, d] pretrained rows.
        index: [n] int64, sorted; which rows they are, a superset of every change's.
        changes: applied in this order.

    Returns:
        [n, d] in float32, or the dtype of `rows` if that is wider.
    """
    tuned = rows.to(wide_dtype(rows.dtype))
    for change in changes:
        slot = torch.searchsorted(index, change.index)
        tuned = tuned.index_add(0, slot, change.delta.to(tuned.dtype))
    return tuned


def union_index(changes: Sequence[RowChange]) -> Tensor:
    """[n] int64: the rows that any of the changes touches, sorted."""
    if len(changes) == 1:
        return changes[0].index
    return torch.cat([change.index for change in changes]).unique()


def change_embedding(base: nn.Embedding, tokens: Tensor, output: Tensor, changes: Sequence[RowChange]) -> Tensor:
    """Replace the vectors of changed rows in the output of an embedding.

    Args:
        base: the embedding with its pretrained weight.
        tokens: integer tensor; what was embedded.
        output: [*tokens.shape, d]; `base(tokens)`.
        changes: applied in this order.

    Returns:
        A tensor like `output`. Vectors of unchanged rows keep their bits.

    Cost:
        O(tokens * d); the gradient of each delta is summed in float32 into [k, d].
    """
    scale = getattr(base, "embed_scale", None)
    vectors = output if scale is None else F.embedding(tokens, base.weight)
    tuned = vectors.to(wide_dtype(vectors.dtype))
    for change in changes:
        # Tokens that are not in the index get a last row of -0.0: to add it changes no bit, unlike to add 0.0.
        delta = F.pad(change.delta.to(tuned.dtype), (0, 0, 0, 1), value=-0.0)
        moves = F.embedding(find_rows(change.index, tokens), delta, padding_idx=change.index.shape[0])
        tuned = moves.add_(tuned)
    tuned = tuned.to(vectors.dtype)
    if scale is None:
        return tuned
    return tuned * (scale.to(tuned.dtype) if isinstance(scale, Tensor) else scale)


def change_logits(base: nn.Linear, hidden: Tensor, logits: Tensor, changes: Sequence[RowChange]) -> Tensor:
    """Add what changed rows contribute to the output of a linear layer.

    Only the columns of changed rows are computed and written, in place, so no second [tokens, V] tensor exists in
    forward or backward. The columns follow the rows as merging would round them, with the gradient passed straight
    through that rounding.

    Args:
        base: the linear layer with its pretrained weight.
        hidden: [..., d]; its input.
        logits: [..., V]; `base(hidden)`; changed in place.
        changes: applied in this order.

    Returns:
        `logits`.
    """
    index = union_index(changes)
    pretrained = base.weight.detach()[index]
    tuned = add_changes(pretrained, index, changes)
    rounding = (tuned.to(pretrained.dtype).to(tuned.dtype) - tuned).detach()
    difference = tuned + rounding - pretrained.to(tuned.dtype)
    columns = F.linear(hidden.to(difference.dtype), difference)
    return logits.index_add_(-1, index, columns.to(logits.dtype))


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that rows and deltas are summed in: at least float32."""
    return torch.promote_types(dtype, torch.float32)
