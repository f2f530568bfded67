"""Before and after, read side by side."""

from collections.abc import Iterator

import torch
from tqdm.auto import tqdm

from ks_lottery.checkpoints.reader import Checkpoint
from ks_lottery.errors import CheckpointError


def paired_chunks(
    before: Checkpoint, after: Checkpoint, parameter: str
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """Walk over one parameter of two checkpoints in step; a progress bar shows when it takes longer than two seconds.

    Yields:
        (number of the first row, [rows, ...] before, [rows, ...] after), both of one dtype, on one device.

    Raises:
        CheckpointError: if the parameter is missing, or differs in shape or dtype; with both values.
    """
    require_comparable(before, after, parameter)
    pairs = zip(before.chunks(parameter), after.chunks(parameter), strict=True)
    with tqdm(total=before.shape(parameter)[0], desc=parameter, unit="row", delay=2, leave=False) as bar:
        for (start, old), (_, new) in pairs:
            yield start, old, new.to(old.device)
            bar.update(len(old))


def require_comparable(before: Checkpoint, after: Checkpoint, parameter: str) -> None:
    """Check that a parameter can be compared between two checkpoints.

    Raises:
        CheckpointError: as `paired_chunks`.
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
