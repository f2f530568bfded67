"""Where a tensor of a checkpoint lies on disk."""

from dataclasses import dataclass
from pathlib import Path

from ks_lottery.checkpoints.checkpoint import Checkpoint
from ks_lottery.checkpoints.reader import FolderCheckpoint


@dataclass(frozen=True, slots=True)
class Place:
    """The bytes of one tensor.

    Attributes:
        path: the file.
        stored: name of the tensor in it.
        begin: first byte, counted from the start of the file.
        end: the byte after the last one.
    """

    path: Path
    stored: str
    begin: int
    end: int


def place_of(checkpoint: Checkpoint, name: str) -> Place | None:
    """Where a parameter lies on disk; None for one of a live model.

    Raises:
        CheckpointError: if the checkpoint has no such parameter, or its file cannot be read.
        HubError: if the file has to be downloaded and cannot be.
    """
    if not isinstance(checkpoint, FolderCheckpoint):
        return None
    file, stored = checkpoint.find(name)
    entry = file.entries[stored]
    return Place(file.path, stored, entry.begin, entry.end)
