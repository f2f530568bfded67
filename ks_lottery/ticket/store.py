"""A ticket's file: one safetensors file whose metadata is a JSON header."""

import json
import math
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors.numpy import save_file

from ks_lottery.checkpoints.safetensors_file import SafetensorsFile
from ks_lottery.checkpoints.safetensors_header import TensorEntry
from ks_lottery.checkpoints.strict_json import strict_json
from ks_lottery.checkpoints.writer import atomic_file
from ks_lottery.errors import CheckpointError, TicketError, UnitError
from ks_lottery.units.slab import Slab, UnitGroup

TICKET_FILE = "ticket.safetensors"
SIGNATURE_FILE = "signature.json"  # beside a ticket; `ks_lottery.ticket.ownership.signature` writes it
_HEADER = "ks_lottery_ticket"
_FORMAT = 1
_COLUMNS = ".columns."
_MOST_DIMENSIONS = 64  # of a numpy array
_MOST_WEIGHTS = 2**60  # of one parameter; their bytes can still be counted in 64 bits

T = TypeVar("T")


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
        header, whose parts have the types that they should have and fit each other (`require_header`), and arrays by
        name: of every group the units, and measured columns of their number.

    Raises:
        TicketError: if there is no such file, or it is damaged, no ticket, or of an unknown format.

    Cost:
        Memory of a few times the file.
    """
    if not file.is_file():
        raise TicketError(f"There is no ticket at {str(file)!r}. ticket.save(folder) writes {TICKET_FILE!r} there.")
    try:
        content = SafetensorsFile(file)
        text = content.metadata.get(_HEADER)
        header = None if text is None else strict_json(text.encode())
    except (CheckpointError, ValueError) as error:
        raise TicketError(f"The ticket {str(file)!r} cannot be read: {error}") from error
    if not isinstance(header, dict):
        raise TicketError(f"{str(file)!r} is a safetensors file, but not a ticket: its metadata has no {_HEADER!r}.")
    if header.get("format") != _FORMAT:
        raise TicketError(
            f"The ticket {str(file)!r} has format {reprlib.repr(header.get('format'))}; this version of ks_lottery "
            f"reads {_FORMAT}. Upgrade ks_lottery."
        )
    try:
        require_header(header)
        _require_arrays([group["name"] for group in header["groups"]], content.entries)
    except (ValueError, UnitError) as error:
        raise TicketError(f"The ticket {str(file)!r} is malformed: {error} Get it again, or find it anew.") from error
    return header, {name: content.array(name) for name in content.entries}


def require_header(header: Mapping[str, Any]) -> None:
    """Check the header of a ticket from anywhere: types, ranges, and that its units lie in the parameters it names.

    Args:
        header: what `Ticket.to_dict` returns, after a way through JSON.

    Raises:
        ValueError: if it says something that no ticket says; with the part and its value.
        UnitError: if a slab lies along a dimension that its parameter does not have.
    """
    for key in ("kind", "granularity"):
        _part(header, key, str)
    provenance = _part(header, "provenance", dict)
    _part(provenance, "method", str)
    _part(provenance, "details", dict)
    shapes = _checked_shapes(_part(header, "base", dict))
    groups = _part(header, "groups", list)
    names = [_checked_group(group, shapes) for group in groups]
    _require(0 < len(names) == len(set(names)), "groups", names, "at least one group, each of another name")


def _checked_shapes(base: dict[str, Any]) -> dict[str, list[int]]:
    """The shapes in a base whose every part has its type."""
    for key in ("name", "model_type", "digest"):
        _part(base, key, str)
    if base.get("revision") is not None:
        _part(base, "revision", str)
    _require(_is_size(base.get("num_parameters")), "num_parameters", base.get("num_parameters"), "a whole number")
    shapes = _part(base, "shapes", dict)
    for name, shape in shapes.items():
        whole = isinstance(shape, list) and len(shape) <= _MOST_DIMENSIONS and all(map(_is_size, shape))
        _require(whole and math.prod(shape) <= _MOST_WEIGHTS, name, shape, "a possible shape")
    return shapes


def _checked_group(group: Any, shapes: Mapping[str, list[int]]) -> str:
    """The name of a group whose every slab lies in its parameter."""
    _require(isinstance(group, dict), "groups", group, "a list of objects")
    name, units = _part(group, "name", str), _part(group, "num_units", int)
    for slab in _part(group, "slabs", list):
        _require(_is_slab(slab), "slabs", slab, "a list of objects with parameter, dim, width, start and lead")
        _require(slab["parameter"] in shapes, "parameter", slab["parameter"], "one of those with a shape")
    for slab in UnitGroup.from_dict(group).slabs:
        shape = shapes[slab.parameter]
        slab.weights_per_unit(shape)
        end, size = slab.start + units * slab.width, _size_along(slab, shape)
        _require(end <= size, f"end of the units of {name[:40]}", end, f"at most {size}")
    return name


def _is_slab(slab: Any) -> bool:
    return (
        isinstance(slab, dict)
        and slab.keys() - {"lead"} == {"parameter", "dim", "width", "start"}
        and isinstance(slab["parameter"], str)
        and (slab["dim"] is None or _is_size(slab["dim"]))
        and _is_size(slab["width"])
        and slab["width"] > 0
        and _is_size(slab["start"])
        and isinstance(slab.get("lead", []), list)
        and all(map(_is_size, slab.get("lead", [])))
    )


def _size_along(slab: Slab, shape: list[int]) -> int:
    """How many indices a parameter has where a slab counts."""
    return math.prod(shape[len(slab.lead) :]) if slab.dim is None else shape[slab.dim]


def _require_arrays(groups: list[str], entries: Mapping[str, TensorEntry]) -> None:
    """Check that a file holds the units of every group, columns of their number, and nothing else."""
    counts = {}
    for name in groups:
        units = entries.get(f"{name}.indices")
        if units is None:
            raise ValueError(f"group {name[:80]!r} has no array of its units, {f'{name[:80]}.indices'!r}.")
        _require_vector(f"{name}.indices", units, "int64", units.shape)
        counts[name] = units.shape
    for array, entry in entries.items():
        if array.removesuffix(".indices") in counts and array.endswith(".indices"):
            continue
        places = [place for place in range(len(array)) if array.startswith(_COLUMNS, place)]
        owner = next((array[:place] for place in places if array[:place] in counts), None)
        if owner is None:
            raise ValueError(f"array {array[:80]!r} is of none of its groups.")
        _require_vector(array, entry, "float64", counts[owner])


def _require_vector(array: str, entry: TensorEntry, dtype: str, shape: tuple[int, ...]) -> None:
    if entry.dtype != dtype or len(entry.shape) != 1 or entry.shape != shape:
        raise ValueError(
            f"{array[:80]!r} is {entry.dtype[:40]} of shape {entry.shape}, which must be a vector of {dtype}, one for "
            "each unit."
        )


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _part(data: Mapping[str, Any], key: str, kind: type[T]) -> T:
    value = data.get(key)
    if not isinstance(value, kind):
        raise ValueError(f"{key!r} is {reprlib.repr(value)}, which must be a {kind.__name__}.")
    return value


def _require(holds: bool, where: str, value: Any, wanted: str) -> None:
    if not holds:
        raise ValueError(f"{where[:80]!r} is {reprlib.repr(value)}, which must be {wanted}.")
