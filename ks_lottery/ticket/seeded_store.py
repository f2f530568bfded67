"""The file of a ticket within a freeze pattern: the pattern's seed, and one bit for every unit that was searched.

    write_seeded(ticket, pattern_of(ticket), "ticket.seeded.safetensors")
    ticket = read_seeded("ticket.seeded.safetensors")

What is frozen takes no room: N * (1 - pruned - locked) bits and a header, whatever the density.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from ks_lottery.checkpoints.safetensors_file import SafetensorsFile
from ks_lottery.checkpoints.strict_json import strict_json
from ks_lottery.checkpoints.writer import atomic_file
from ks_lottery.errors import CheckpointError, LotteryError, OptionError, TicketError
from ks_lottery.ticket.freeze_pattern import FREE, LOCKED, PRUNED, FreezePattern
from ks_lottery.ticket.identity import BaseIdentity
from ks_lottery.ticket.store import require_header
from ks_lottery.ticket.ticket import Provenance, Selection, Ticket
from ks_lottery.units.slab import UnitGroup

_HEADER = "ks_lottery_seeded_ticket"
_FORMAT = 1
_BITS = "bits"
# A small file must not make its reader draw a large pattern.
_MOST_UNITS_PER_BIT = 1000
_ALWAYS_DRAWN = 2**20  # units


def write_seeded(ticket: Ticket, pattern: FreezePattern, path: str | os.PathLike[str]) -> None:
    """Write a ticket that has all locked and no pruned unit of a pattern, atomically. Measured columns are left out.

    Args:
        ticket: of any kind.
        pattern: over the ticket's groups.
        path: of the file, which ends in `.safetensors`.

    Raises:
        TicketError: if the pattern is over other groups, the ticket has a pruned or lacks a locked unit, or more than
            999 of 1000 units are frozen.
        OptionError: if the path ends otherwise.

    Cost:
        One byte for each unit, and what drawing the pattern costs.
    """
    file = Path(path)
    if file.suffix != ".safetensors":
        raise OptionError(f"write_seeded to {str(path)!r}: the name must end in '.safetensors'.")
    _require_units({name: selection.group.num_units for name, selection in ticket.selections.items()}, pattern)
    bits = [_free_bits(selection, pattern.of_group(name)) for name, selection in ticket.selections.items()]
    header = {**ticket.to_dict(), "pattern": pattern.to_dict(), "format": _FORMAT}
    with atomic_file(file) as temporary:
        metadata = {_HEADER: json.dumps(header, sort_keys=True, separators=(",", ":"))}
        save_file({_BITS: np.packbits(np.concatenate(bits))}, temporary, metadata)


def read_seeded(path: str | os.PathLike[str], base: BaseIdentity | None = None) -> Ticket:
    """Read what `write_seeded` wrote: the same ticket, without its measured columns.

    Args:
        path: of the file.
        base: of the model that the ticket is for; checked if given.

    Returns:
        the ticket; its fingerprint is the one that was written.

    Raises:
        TicketError: if there is no such file, it is damaged or no such ticket, was changed after it was written, or
            belongs to another base model.

    Cost:
        As `write_seeded`, and a JSON text of all selected units for the fingerprint.
    """
    file = Path(path)
    header, bits = _read(file)
    try:
        ticket = _rebuilt(header, bits)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, LotteryError) as error:
        raise TicketError(f"The ticket {str(file)!r} is malformed: {error}.") from error
    if ticket.fingerprint != header.get("fingerprint"):
        raise TicketError(
            f"The ticket {str(file)!r} was changed after it was written, or its pattern was drawn by other rules: its "
            f"units have fingerprint {ticket.fingerprint[:12]}, its header says {str(header.get('fingerprint'))[:12]}."
        )
    if base is not None:
        ticket.base.require_same(base)
    return ticket


def bits_per_weight(density: float) -> dict[str, float]:
    """What the positions of a ticket take in other codes, in bits for each weight that could be chosen.

    Args:
        density: of the ticket among those weights, in (0, 1).

    Returns:
        bitmap: one bit each; entropy: the least that any code of independent positions takes on average; index: 32 bits
        for each chosen weight, which is below a bitmap under 1/32.

    Raises:
        OptionError: if the density is out of range.
    """
    if not 0.0 < density < 1.0:
        raise OptionError(f"bits_per_weight({density!r}): the density must lie between 0 and 1.")
    rest = 1 - density
    entropy = -(density * math.log2(density) + rest * math.log2(rest))
    return {"bitmap": 1.0, "entropy": entropy, "index": 32 * density}


def _free_bits(selection: Selection, pattern: NDArray[np.int8]) -> NDArray[np.bool_]:
    """[free] bool: which free units of a group are selected."""
    chosen = np.zeros(selection.group.num_units, dtype=bool)
    chosen[selection.indices] = True
    for value, wrong, what in (
        (PRUNED, chosen, "has the pruned unit"),
        (LOCKED, ~chosen, "lacks the locked unit"),
    ):
        units = np.flatnonzero(wrong & (pattern == value))
        if len(units):
            raise TicketError(
                f"The ticket {what} {units[0]} of group {selection.group.name!r}, and {len(units) - 1} more, so a seed "
                "cannot tell it. Give the pattern that it was found in, and cut it at the density of the search; or "
                "ticket.save(folder)."
            )
    return chosen[pattern == FREE]


def _require_units(units: Mapping[str, int], pattern: FreezePattern) -> None:
    """Check that a pattern is over these groups, and not out of proportion to its free units."""
    counted = {name: one.units for name, one in pattern.counts.items()}
    if counted != dict(units):
        name = next(name for name in (*units, *counted) if units.get(name) != counted.get(name))
        raise TicketError(
            f"Group {name!r} has {units.get(name, 'no')} units in the ticket and {counted.get(name, 'no')} in the "
            "freeze pattern. Give the pattern that the ticket was found in: pattern_of(ticket)."
        )
    if pattern.units > max(_ALWAYS_DRAWN, _MOST_UNITS_PER_BIT * pattern.free):
        raise TicketError(
            f"{pattern.free} of {pattern.units} units are free; at least one in {_MOST_UNITS_PER_BIT} must be. Freeze "
            "fewer, or store the ticket with ticket.save(folder)."
        )


def _read(file: Path) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """Header and bits."""
    if not file.is_file():
        raise TicketError(f"There is no ticket at {str(file)!r}. write_seeded(ticket, pattern, path) writes one.")
    try:
        content = SafetensorsFile(file)
        text = content.metadata.get(_HEADER)
        header = None if text is None else strict_json(text.encode())
    except (CheckpointError, ValueError) as error:
        raise TicketError(f"The ticket {str(file)!r} cannot be read: {error}") from error
    if not isinstance(header, dict):
        raise TicketError(
            f"{str(file)!r} is a safetensors file, but not a seeded ticket: its metadata has no {_HEADER!r}. "
            "Ticket.load reads tickets that were saved with their positions."
        )
    if header.get("format") != _FORMAT:
        raise TicketError(
            f"The ticket {str(file)!r} has format {header.get('format')!r}; this version of ks_lottery reads "
            f"{_FORMAT}. Upgrade ks_lottery."
        )
    entry = content.entries.get(_BITS)
    if len(content.entries) != 1 or entry is None or entry.dtype != "uint8" or len(entry.shape) != 1:
        raise TicketError(
            f"The ticket {str(file)!r} holds {sorted(content.entries)[:4]}, where a seeded ticket holds {_BITS!r} "
            "alone, a vector of bytes. Get it again."
        )
    return header, content.array(_BITS)


def _rebuilt(header: Mapping[str, Any], packed: NDArray[np.uint8]) -> Ticket:
    groups = list(map(UnitGroup.from_dict, header["groups"]))
    pattern = FreezePattern.from_dict(header["pattern"])
    units = {group.name: group.num_units for group in groups}
    if len(units) != len(groups):
        raise TicketError(f"{len(groups)} groups have {len(units)} names")
    _require_units(units, pattern)
    require_header(header)
    if len(packed) != -(-pattern.free // 8):
        raise TicketError(f"{pattern.free} free units take {-(-pattern.free // 8)} bytes, but it holds {len(packed)}")
    bits = np.unpackbits(packed).astype(bool)
    if bits[pattern.free :].any():
        raise TicketError("the bits behind the last unit are not 0")
    selections, start = {}, 0
    for group in groups:
        chosen = pattern.of_group(group.name)
        free = chosen == FREE
        stop = start + int(free.sum())
        chosen[free] = np.where(bits[start:stop], LOCKED, PRUNED)
        selections[group.name] = Selection(group, np.flatnonzero(chosen == LOCKED))
        start = stop
    provenance = Provenance(header["provenance"]["method"], header["provenance"]["details"])
    return Ticket(header["kind"], header["granularity"], selections, BaseIdentity.from_dict(header["base"]), provenance)
