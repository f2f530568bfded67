"""Partial transfer on disk: a copy of the base model's files with the tuned weights of a ticket."""

import os
from pathlib import Path

import numpy as np
import torch

from ks_lottery.adapter.export.base_files import BaseFiles, Progress
from ks_lottery.adapter.fit import ChosenPart, chosen_parts, require_slabs, require_update
from ks_lottery.adapter.parts import write_part
from ks_lottery.adapter.transfer import read_chosen, require_after
from ks_lottery.checkpoints.checkpoint import Checkpoint
from ks_lottery.checkpoints.reader import FolderCheckpoint, open_checkpoint
from ks_lottery.checkpoints.safetensors_header import TensorEntry
from ks_lottery.checkpoints.writer import atomic_folder
from ks_lottery.errors import AdapterError
from ks_lottery.stats.floats import FORMATS
from ks_lottery.ticket.identity import identify
from ks_lottery.ticket.ticket import Ticket
from ks_lottery.units.architecture import architecture, architectures


def transfer_checkpoint(
    base: str | os.PathLike[str] | FolderCheckpoint,
    ticket: Ticket,
    after: str | os.PathLike[str] | Checkpoint,
    folder: str | os.PathLike[str],
    progress: Progress | None = None,
) -> Path:
    """Write the base model with the weights of a ticket as they are in `after`; nothing is trained, no model is built.

    The result is, bit for bit, what `transfer_ticket` makes of the model in memory.

    Args:
        base: the ticket's base model: a folder or Hub id.
        ticket: an update ticket of it.
        after: the weights at the end of the probe: a folder or Hub id. Values are rounded to the dtype of the base.
        folder: where to; an older folder there is replaced as a whole.
        progress: called with the bytes to copy; what it returns is told of the bytes as they are copied.

    Returns:
        The folder.

    Raises:
        AdapterError: if the ticket is a weight ticket, does not fit `after` or the files, or the folder is or holds one
            of the two models.
        TicketError: if the ticket belongs to another base model.
        CheckpointError: if a model cannot be read.
        HubError: if something has to be downloaded and cannot be.

    Source:
        Yuan et al. 2025 (KS-Lottery), partial transfer.

    Cost:
        One copy of the files on disk; memory for what the ticket chooses of one parameter.
    """
    require_update(ticket)
    require_slabs(ticket)
    before, tuned = open_checkpoint(base), open_checkpoint(after)
    assert isinstance(before, FolderCheckpoint)
    for one in (before, tuned):
        _require_elsewhere(one, Path(folder))
    ticket.base.require_same(identify(before, ticket.base.shapes))
    require_after(tuned, ticket)
    files = BaseFiles(before)
    parts = [(part, _places(files, before, part)) for part in chosen_parts(ticket)]
    with atomic_folder(folder) as temporary:
        files.copy(temporary, progress)
        for part, places in parts:
            values = read_chosen(tuned, part)
            for file, entry in places:
                _write(temporary / file, entry, part, values)
    return Path(folder)


def _require_elsewhere(checkpoint: Checkpoint, folder: Path) -> None:
    if isinstance(checkpoint, FolderCheckpoint) and checkpoint.folder.resolve().is_relative_to(folder.resolve()):
        raise AdapterError(
            f"The result would replace {str(folder)!r}, and with it {str(checkpoint.folder)!r}, from which it is made. "
            "Choose another folder."
        )


def _places(files: BaseFiles, base: FolderCheckpoint, part: ChosenPart) -> list[tuple[str, TensorEntry]]:
    """Where a parameter lies: at two places where files hold both ends of tied embeddings."""
    names = [part.parameter]
    if base.tied and base.model_type in architectures():
        ends = architecture(base.model_type)
        if part.parameter == base.layout().under(ends.input_embedding or ""):
            names.append(ends.output_head)
    places = [files.places[name] for name in names if name in files.places]
    for _, entry in places:
        if entry.dtype not in FORMATS:
            raise AdapterError(
                f"{part.parameter!r} is {entry.dtype} in the files of {base.name!r}, so it is quantised. Give the base "
                "model in its full precision."
            )
    return places


def _write(path: Path, entry: TensorEntry, part: ChosenPart, values: torch.Tensor) -> None:
    """Write what a ticket chooses of a tensor, as `read_chosen` gives it, into its file; all other bytes stay."""
    stored = np.memmap(path, dtype=np.uint8, mode="r+", offset=entry.begin, shape=(entry.end - entry.begin,))
    tensor = torch.from_numpy(stored).view(getattr(torch, entry.dtype)).view(entry.shape)
    write_part(tensor, part.dim, torch.from_numpy(part.index), values)
    stored.flush()
