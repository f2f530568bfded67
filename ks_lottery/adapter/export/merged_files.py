"""A merged checkpoint from files: the base model's are copied, and what the ticket changes is rewritten in the copies.

No model is built. Shapes and dtypes stay, so the files keep their layout, and every byte that is not of a changed
parameter is the base model's.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ks_lottery.adapter.export.base_files import BaseFiles, Progress
from ks_lottery.adapter.export.saved_adapter import SavedAdapter, SavedChange
from ks_lottery.adapter.parts import PartKind, read_part, tuned_part, write_part
from ks_lottery.adapter.rows import RowChange
from ks_lottery.checkpoints.reader import FolderCheckpoint
from ks_lottery.checkpoints.safetensors_header import TensorEntry
from ks_lottery.errors import AdapterError
from ks_lottery.stats.floats import FORMATS

_NOWHERE = TensorEntry("", (), 0, 0)
_PIECE_BYTES = 16 * 2**20


@dataclass(frozen=True)
class _Edit:
    """A change of one tensor in a file: of a part of it, or, with `kind` None, a new value of the whole."""

    file: str
    entry: TensorEntry
    kind: PartKind | None
    change: RowChange | None = None
    value: Tensor | None = None


def write_merged_files(
    adapter: SavedAdapter, base: FolderCheckpoint, folder: Path, progress: Progress | None = None
) -> None:
    """Write a whole model.

    Args:
        adapter: what is changed.
        base: the adapter's base model. Files beside its weights (configuration, tokenizer, licence) are copied too, but
            not its README, which describes the base model.
        folder: an existing folder.
        progress: told of the bytes as they are copied.

    Raises:
        AdapterError: if the base model's files do not hold what the adapter changes; nothing has been written then.
        HubError: if the base model has to be downloaded and cannot be.

    Cost:
        One copy of the files on disk; memory for the adapter and a few pieces of 16 MiB.
    """
    files = BaseFiles(base)
    edits = list(_edits(adapter, files.places, base.name))
    files.copy(folder, progress)
    for edit in edits:
        _apply(edit, folder / edit.file)


def _edits(adapter: SavedAdapter, places: Mapping[str, tuple[str, TensorEntry]], base: str) -> Iterator[_Edit]:
    for saved in adapter.changes():
        present = [name for name in saved.parameters if name in places]
        if not present:
            raise AdapterError(
                f"The adapter {adapter.name!r} changes {saved.parameters[0]!r}, which the files of the base model "
                f"{base!r} do not hold. Give base_model the model that it was trained on."
            )
        for name in present:
            file, entry = places[name]
            _require_fit(saved, name, entry, base)
            yield _Edit(file, entry, saved.kind, saved.change)
    for name, value in adapter.whole().items():
        file, entry = places.get(name, ("", _NOWHERE))
        if not file or entry.shape != tuple(value.shape) or entry.dtype not in FORMATS:
            found = f"hold it as {entry.dtype} of shape {entry.shape}" if file else "do not hold it"
            raise AdapterError(
                f"The adapter {adapter.name!r} trained {name!r} of shape {tuple(value.shape)} whole, but the files of "
                f"the base model {base!r} {found}. Load the model with its head and the adapter, and export that: "
                "export_ticket(model, folder, to='merged')."
            )
        yield _Edit(file, entry, None, value=value)


def _require_fit(saved: SavedChange, name: str, entry: TensorEntry, base: str) -> None:
    change, dim = saved.change, saved.kind.dim
    size = math.prod(entry.shape) if dim is None else entry.shape[dim]
    slices = () if dim is None else entry.shape[:dim] + entry.shape[dim + 1 :]
    if int(change.index.max()) >= size or tuple(change.delta.shape[1:]) != slices or entry.dtype not in FORMATS:
        raise AdapterError(
            f"{name!r} is {entry.dtype} of shape {entry.shape} in the base model {base!r}, but the adapter changes "
            f"positions up to {int(change.index.max())} of dimension {dim}, each of shape "
            f"{tuple(change.delta.shape[1:])}. Give base_model the model that it was trained on, not quantised and not "
            "resized."
        )


def _apply(edit: _Edit, path: Path) -> None:
    """Rewrite a tensor in place, in pieces; what is not of the change keeps its bits."""
    entry = edit.entry
    width = math.prod(entry.shape[1:])
    row_bytes = (entry.end - entry.begin) // entry.shape[0]
    step = max(1, _PIECE_BYTES // row_bytes)
    with path.open("r+b") as file:
        for start in range(0, entry.shape[0], step):
            stop = min(start + step, entry.shape[0])
            change = None if edit.change is None else _within(edit.change, edit.kind, start, stop, width)
            if change is not None and not len(change.index):
                continue
            file.seek(entry.begin + start * row_bytes)
            content = bytearray(file.read((stop - start) * row_bytes))
            block = torch.frombuffer(content, dtype=getattr(torch, entry.dtype)).view(stop - start, *entry.shape[1:])
            if change is None:
                assert edit.value is not None
                block.copy_(edit.value[start:stop])
            else:
                assert edit.kind is not None
                pretrained = read_part(block, edit.kind.dim, change.index)
                write_part(block, edit.kind.dim, change.index, tuned_part(pretrained, change.index, [change]))
            file.seek(entry.begin + start * row_bytes)
            file.write(content)


def _within(change: RowChange, kind: PartKind | None, start: int, stop: int, width: int) -> RowChange:
    """The part of a change that lies in rows `start` to `stop`, with positions counted from there."""
    assert kind is not None
    if kind.dim == 1:
        return RowChange(change.index, change.delta[:, start:stop])
    unit = width if kind.dim is None else 1
    index = change.index.to(torch.int64)
    first, last = torch.searchsorted(index, torch.tensor([start * unit, stop * unit])).tolist()
    return RowChange(index[first:last] - start * unit, change.delta[first:last])
