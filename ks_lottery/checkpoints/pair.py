"""Before and after, read side by side."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tqdm import tqdm

from ks_lottery.checkpoints.checkpoint import Checkpoint, Rows
from ks_lottery.errors import CheckpointError
from ks_lottery.stats.floats import FloatBits

if TYPE_CHECKING:
    import torch


def paired_chunks(before: Checkpoint, after: Checkpoint, parameter: str) -> Iterator[tuple[int, Rows, Rows]]:
    """Walk over one parameter of two checkpoints in step; a progress bar shows when it takes longer than two seconds.

    Yields:
        (number of the first row, [rows, ...] before, [rows, ...] after), of one dtype: both bits, or both tensors on
        one GPU where one of them lies there. They are valid until the next step, and to be read only.

    Raises:
        CheckpointError: if the parameter is missing, differs in shape or dtype (with both values), or holds no floats.
    """
    require_comparable(before, after, parameter)
    pairs = zip(before.chunks(parameter), after.chunks(parameter), strict=True)
    rows = sum(before.shape(parameter)[:1]) or 1
    with tqdm(total=rows, desc=parameter, unit="row", delay=2, leave=False) as bar:
        for (start, old), (_, new) in pairs:
            yield start, *together(old, new)
            bar.update(len(old))


def together(old: Rows, new: Rows) -> tuple[Rows, Rows]:
    """Rows of two checkpoints as they are if both are bits, else both on the device of the first that is a tensor."""
    if isinstance(old, FloatBits):
        return (old, new) if isinstance(new, FloatBits) else (_on_device_of(new, old), new)
    return old, _on_device_of(old, new)


def _on_device_of(other: "torch.Tensor", rows: Rows) -> "torch.Tensor":
    import torch

    if isinstance(rows, FloatBits):
        rows = torch.from_numpy(rows.array.copy()).view(getattr(torch, rows.dtype))
    return rows.to(other.device)


def require_comparable(before: Checkpoint, after: Checkpoint, parameter: str) -> None:
    """Check that a parameter can be compared between two checkpoints.

    Raises:
        CheckpointError: if it is missing, or differs in shape or dtype; with both values.
    """
    for which, checkpoint in (("before", before), ("after", after)):
        if parameter not in checkpoint.names():
            raise CheckpointError(
                f"{parameter!r} is missing in {which} = {checkpoint.name!r}. Before and after must be the same "
                "architecture; has the output head been tied or untied in between?"
            )
    old, new = before.shape(parameter), after.shape(parameter)
    if old != new:
        rows = (
            f" The vocabulary went from {old[0]} to {new[0]} rows: compare checkpoints from before tokens were added, "
            f"or resize both: model.resize_token_embeddings({max(old[0], new[0])})."
            if old[1:] == new[1:] and len(old) == 2
            else " Before and after must be the same architecture and size."
        )
        raise CheckpointError(
            f"{parameter!r} has shape {old} in before = {before.name!r} and {new} in after = {after.name!r}.{rows}"
        )
    if before.dtype(parameter) != after.dtype(parameter):
        raise CheckpointError(
            f"{parameter!r} is {before.dtype(parameter)} in before = {before.name!r} and {after.dtype(parameter)} in "
            f"after = {after.name!r}; rounding alone would look like a shift. Save both in one dtype, for example "
            "float32 masters."
        )
