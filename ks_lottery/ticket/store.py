"""A ticket's file: one safetensors file whose metadata is a JSON header."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from ks_lottery.checkpoints.safetensors_file import SafetensorsFile
from ks_lottery.checkpoints.writer import atomic_file
from ks_lottery.errors import CheckpointError, TicketError

TICKET_FILE = "ticket.safetensors"
_HEADER = "ks_lottery_ticket"
_FORMAT = 1


def ticket_file(path: str | os.PathLike[str]) -> Path:
    """The file that `path` means: itself if it ends in `.safetensors`, else `ticket.safetensors` in that folder."""
    path = Path(path)
    return path if path.suffix == ".safetensors" else path / TICKET_FILE


def write_ticket_file(file: Path, header: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    """Write header and arrays atomically."""
    metadata = {_HEADER: json.dumps({**header, "format": _FORMAT}, sort_keys=True)}
    with atomic_file(file) as temporary:
        save_file({name: np.ascontiguousarray(values) for name, values in tensors.items()}, temporary, metadata)


def read_ticket_file(file: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read what `write_ticket_file` wrote.

    Returns:
        header, and arrays by name.

    Raises:
        TicketError: if there is no such file, or it is damaged, no ticket, or of an unknown format.
    """
    if not file.is_file():
        raise TicketError(f"There is no ticket at {str(file)!r}. ticket.save(folder) writes {TICKET_FILE!r} there.")
    try:
        content = SafetensorsFile(file)
        text = content.metadata.get(_HEADER)
        header = None if text is None else json.loads(text)
    except (CheckpointError, ValueError) as error:
        raise TicketError(f"The ticket {str(file)!r} cannot be read: {error}") from error
    if not isinstance(header, dict):
        raise TicketError(f"{str(file)!r} is a safetensors file, but not a ticket: its metadata has no {_HEADER!r}.")
    if header.get("format") != _FORMAT:
        raise TicketError(
            f"The ticket {str(file)!r} has format {header.get('format')!r}; this version of ks_lottery reads "
            f"{_FORMAT}. Upgrade ks_lottery."
        )
    return header, {name: content.array(name) for name in content.entries}
