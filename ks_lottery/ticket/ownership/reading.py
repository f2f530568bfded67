"""White-box verification: does a mask, or a model, carry the mark of a key?"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ks_lottery.checkpoints.reader import Checkpoint, open_checkpoint
from ks_lottery.errors import OptionError, TicketError
from ks_lottery.ticket.ownership.cells import Shape, all_places, mask_of, matrices, occupied
from ks_lottery.ticket.ownership.chance import LEVEL, log10_tail, require_level
from ks_lottery.ticket.ownership.credential import decode, written_cells
from ks_lottery.ticket.ownership.mark import magnitudes
from ks_lottery.ticket.ownership.mark_key import MarkKey, unmasked
from ks_lottery.ticket.ticket import Ticket

Suspect = Ticket | Checkpoint


@dataclass(frozen=True)
class MarkReading:
    """What a mask says about a claim.

    Attributes:
        cells: written cells of the pattern.
        matches: of them, those that are as the key says.
        places: at how many places of these matrices a pattern of any size and block could lie.
        log10_p: log10 of the probability that an unrelated mask matches as well at one place or another.
        level: the claim holds if p is at most this.
        text: what the cells spell after error correction, or None if too many are wrong.
    """

    cells: int
    matches: int
    places: int
    log10_p: float
    level: float
    text: str | None

    @property
    def match(self) -> float:
        """Share of matching cells: about .5 by chance."""
        return self.matches / self.cells

    @property
    def verified(self) -> bool:
        """Whether the claim holds."""
        return self.log10_p <= math.log10(self.level)


def verify_mark(suspect: Suspect, key: MarkKey, *, level: float = LEVEL, threshold: float = 0.0) -> MarkReading:
    """Compare a mask with what the key says it carries.

    For a secret that has nothing to do with the mask, each written cell matches with probability 1/2, independently of
    all others and of the mask's density, since the written cells are XORed with a stream of the secret. The tail of the
    binomial distribution is therefore exact. It is multiplied by the number of places that a claim could point to.

    Args:
        suspect: a weight ticket of single weights, or a model with zeros in place of what is not selected.
        key: the owner's.
        level: largest p-value at which the claim holds. A forger tries many secrets: this bounds the probability that
            one of them holds, per secret.
        threshold: for a model, weights of at most this magnitude count as zero: a thief may have added small ones.

    Raises:
        TicketError: if the suspect is a ticket of another kind, or has no matrix with the key's place.
        OptionError: if `level` is not inside (0, 1), or `threshold` is negative or given for a ticket.

    Source:
        Chen et al. 2021 (NeurIPS), scheme V2. They decode; here the share of matching cells decides.
    """
    require_level(level)
    if not 0.0 <= threshold < math.inf or (threshold and isinstance(suspect, Ticket)):
        raise OptionError(f"threshold={threshold}: a magnitude, from 0, for a model; a ticket has no magnitudes.")
    shapes = _shapes(suspect)
    shape, cells_needed = shapes.get(key.parameter), (key.row + key.size, key.column + key.size)
    if shape is None or any(have // key.block < need for have, need in zip(shape, cells_needed, strict=True)):
        found = "no such matrix" if shape is None else f"it in shape {shape}"
        raise TicketError(
            f"The mark key points to a place of a matrix that {_name(suspect)} lacks: it has {found}. The key "
            "belongs to another model."
        )
    pattern, written = key.pattern(), written_cells(key.size)
    cells = cells_at(suspect, key, threshold)
    matches, total = int((cells == pattern)[written].sum()), int(written.sum())
    count = all_places(list(shapes.values()))
    log10_p = min(0.0, log10_tail(matches, total, 0.5) + math.log10(count))
    try:
        text = decode(unmasked(cells, key.secret))
    except TicketError:
        text = None
    return MarkReading(total, matches, count, log10_p, level, text)


def cells_at(suspect: Suspect, key: MarkKey, threshold: float = 0.0) -> NDArray[np.bool_]:
    """[size, size] bool: the cells of a mask at the key's place; arguments as `verify_mark`."""
    if isinstance(suspect, Ticket):
        mask = mask_of(suspect, key.parameter)
    else:
        mask = magnitudes(suspect, key.parameter) > threshold
    return occupied(mask, key.block)[key.row : key.row + key.size, key.column : key.column + key.size]


def open_suspect(source: str | os.PathLike[str]) -> Suspect:
    """A ticket, or a model where a folder holds a `config.json` and no ticket, or a file that is no ticket's.

    Raises:
        TicketError, CheckpointError, HubError: if neither can be read.
    """
    path = Path(source)
    if (path / "config.json").is_file() and not (path / "ticket.safetensors").is_file():
        return open_checkpoint(path)
    return Ticket.from_pretrained(source)


def _shapes(suspect: Suspect) -> dict[str, Shape]:
    if isinstance(suspect, Ticket):
        return matrices(suspect)
    shapes = {name: suspect.shape(name) for name in suspect.names()}
    return {name: (shape[0], shape[1]) for name, shape in shapes.items() if len(shape) == 2}


def _name(suspect: Suspect) -> str:
    return f"the ticket of {suspect.base.name!r}" if isinstance(suspect, Ticket) else f"the model {suspect.name!r}"
