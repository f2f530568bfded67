"""The base model of a weight ticket: every tensor that it is stored with, on its way into another folder."""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from typing_extensions import override

from ks_lottery.checkpoints.checkpoint import Checkpoint
from ks_lottery.checkpoints.dtypes import ITEM_BYTES
from ks_lottery.checkpoints.model_folder import OutgoingTensor, copy_beside, write_weights
from ks_lottery.checkpoints.place import place_of
from ks_lottery.checkpoints.reader import FolderCheckpoint, HubCheckpoint, ModelCheckpoint, open_checkpoint
from ks_lottery.checkpoints.strict_json import strict_json_file
from ks_lottery.checkpoints.writer import atomic_folder, write_json
from ks_lottery.errors import CheckpointError, OptionError, TicketError
from ks_lottery.ticket.identity import identify
from ks_lottery.ticket.ticket import Ticket
from ks_lottery.units.architecture import architecture

Source: TypeAlias = str | os.PathLike[str] | nn.Module | FolderCheckpoint
Piece: TypeAlias = tuple[int, NDArray[Any]]
"""Number of the first row, and [rows, ...] unsigned integers that hold the bits of some rows of a tensor."""

Change: TypeAlias = Callable[[Iterable[Piece]], Iterator[NDArray[Any]]]
"""All pieces of a tensor to what is written of them."""

_PIECE_BYTES = 16 * 2**20


class WeightBase:
    """A base model that a weight ticket was checked against.

    Args:
        source: a folder, a Hub id, a live model or an opened folder.
        ticket: a weight ticket of it.
        folder: where the result is going to be.

    Attributes:
        checkpoint: the model as tickets see it.
        names: every tensor that has to be written, by its live name: parameters, buffers that files hold, and an
            output head that differs from the embedding that the configuration ties it to, as Flan-T5's does.
        config: the JSON of its configuration.

    Raises:
        TicketError: if the ticket is no weight ticket, or belongs to another base model.
        CheckpointError: if the model cannot be read, or is quantised.
        OptionError: if the folder is or holds the model.
        HubError: if something has to be downloaded and cannot be.
    """

    def __init__(self, source: Source, ticket: Ticket, folder: str | os.PathLike[str]) -> None:
        _require_weight_ticket(ticket)
        self._source = source
        self.checkpoint = _open(source)
        self._require_elsewhere(folder)
        self._require_plain()
        ticket.base.require_same(identify(self.checkpoint, ticket.base.shapes))
        self._stored = _as_stored(self.checkpoint)
        head = [name for name in self._stored.names() if name not in self.checkpoint.names() and self._differs(name)]
        if head and "tied" in ticket.selections:
            raise TicketError(
                f"The ticket's rows are of an output head that is the input embedding, but {self.checkpoint.name!r} "
                f"stores another {head[0]!r}. Save the model again with tie_word_embeddings=False, and find the ticket "
                "on that."
            )
        self.names = (*self.checkpoint.layout().shapes, *head)
        self.config = self._read_config()

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self._stored.shape(name)

    def tensor(
        self, name: str, after: str, shape: tuple[int, ...], change: Change | None = None, by_row: bool = False
    ) -> OutgoingTensor:
        """A tensor to write.

        Args:
            name: which one.
            after: its live name in the result; a file spells it as the base model's file does.
            shape: its shape in the result.
            change: what is written of its pieces; all of them if None.
            by_row: whether a piece is one row, that is one index of the first dimension.
        """

        def pieces() -> Iterable[NDArray[Any]]:
            stored = self._pieces(name, by_row)
            return (piece for _, piece in stored) if change is None else change(stored)

        return OutgoingTensor(self._file_name(name, after), self._stored.dtype(name), shape, pieces)

    def write(
        self, folder: str | os.PathLike[str], config: Mapping[str, Any], tensors: Iterable[OutgoingTensor]
    ) -> None:
        """Write a model's folder, whole or not at all, with what stands beside the weights of the base model."""
        with atomic_folder(folder) as temporary:
            write_json(temporary / "config.json", config)
            if isinstance(self.checkpoint, FolderCheckpoint):
                copy_beside(self.checkpoint, temporary)
            else:
                model: Any = self._source
                if model.can_generate():
                    model.generation_config.save_pretrained(temporary)
            write_weights(temporary, tensors)

    def _require_elsewhere(self, folder: str | os.PathLike[str]) -> None:
        checkpoint = self.checkpoint
        if not isinstance(checkpoint, FolderCheckpoint):
            return
        if checkpoint.folder.resolve().is_relative_to(Path(folder).resolve()):
            raise OptionError(
                f"The result would replace {os.fspath(folder)!r}, and with it {str(checkpoint.folder)!r}, from which "
                "it is made. Choose another folder."
            )

    def _require_plain(self) -> None:
        checkpoint = self.checkpoint
        packed = [name for name in checkpoint.names() if checkpoint.dtype(name) not in ITEM_BYTES]
        if packed or getattr(checkpoint.config, "quantization_config", None) is not None:
            raise CheckpointError(
                f"{checkpoint.name!r} is quantised, and packed weights have no rows and columns to leave out. Give the "
                "model in its full precision."
            )

    def _differs(self, head: str) -> bool:
        """Whether a stored output head is another matrix than the embedding."""
        layout = self.checkpoint.layout()
        embedding = layout.under(architecture(layout.model_type).input_embedding)
        if self.shape(head) != self.shape(embedding) or self._stored.dtype(head) != self._stored.dtype(embedding):
            return True
        pairs = zip(self._pieces(head), self._pieces(embedding), strict=True)
        return any(not np.array_equal(one, other) for (_, one), (_, other) in pairs)

    def _read_config(self) -> dict[str, Any]:
        if isinstance(self.checkpoint, FolderCheckpoint):
            config: dict[str, Any] = strict_json_file(self.checkpoint.folder / "config.json")
            return config
        names = self.checkpoint.names()
        dtype = next((dtype for dtype in map(self.checkpoint.dtype, names) if "float" in dtype), "float32")
        config = json.loads(self.checkpoint.config.to_json_string(use_diff=True))
        return config | {"architectures": [type(self._source).__name__], "dtype": dtype}

    def _file_name(self, name: str, after: str) -> str:
        """What a file calls a tensor: as the base model's does, but with the number that its block has afterwards."""
        place = place_of(self._stored, name)
        if place is None or name == after:
            return after if place is None else place.stored
        number = next(part for part in after.split(".") if part.isdigit())
        parts = place.stored.split(".")
        at = next(position for position, part in enumerate(parts) if part.isdigit())
        return ".".join([*parts[:at], number, *parts[at + 1 :]])

    def _pieces(self, name: str, by_row: bool = False) -> Iterator[Piece]:
        """A tensor of any dtype as unsigned integers that hold its bits; a scalar is one row."""
        shape = self.shape(name) or (1,)
        item = ITEM_BYTES[self._stored.dtype(name)]
        row_bytes = max(1, math.prod(shape[1:])) * item
        step = 1 if by_row else max(1, _PIECE_BYTES // row_bytes)
        for start in range(0, shape[0], step):
            stop = min(start + step, shape[0])
            rows = self._stored.rows(name, start, stop).detach().cpu().contiguous()
            piece = rows.reshape(-1).view(torch.uint8).numpy().view(f"u{item}").reshape(stop - start, *shape[1:])
            yield start, piece
            self._stored.release(name)


class _WholeModel(ModelCheckpoint):
    """A live model's parameters, and the buffers that a file of it holds."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        known = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        self._parameters |= {name: value for name, value in model.state_dict().items() if name not in known}


class _FolderAsStored(FolderCheckpoint):
    """A folder with both matrices where its configuration ties two."""

    @property
    @override
    def tied(self) -> bool:
        return False


class _HubAsStored(HubCheckpoint):
    """The same of a repository."""

    @property
    @override
    def tied(self) -> bool:
        return False


def _require_weight_ticket(ticket: Ticket) -> None:
    if ticket.kind != "weight":
        raise TicketError(
            f"The ticket is of kind {ticket.kind!r} (found by {ticket.provenance.method!r}): what it does not select "
            "keeps its pretrained value, so nothing of the model can go. That is so of 'weight' tickets only, where "
            "the rest is zero."
        )


def _open(source: Source) -> Checkpoint:
    if isinstance(source, Checkpoint) and not isinstance(source, FolderCheckpoint):
        raise OptionError(
            f"source={type(source).__name__}: an opened live model does not show the buffers that its files need. Give "
            "the model itself."
        )
    if isinstance(source, nn.Module) and hasattr(source, "config"):
        return _WholeModel(source)
    return open_checkpoint(source)


def _as_stored(checkpoint: Checkpoint) -> Checkpoint:
    if not (checkpoint.tied and isinstance(checkpoint, FolderCheckpoint)):
        return checkpoint
    if isinstance(checkpoint, HubCheckpoint):
        return _HubAsStored(checkpoint.name, checkpoint.revision)
    return _FolderAsStored(checkpoint.folder, checkpoint.name)
