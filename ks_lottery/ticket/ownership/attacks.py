"""What a thief does to a mask: drop weights or add some. To measure how much of a mark is left."""

from collections.abc import Mapping

import numpy as np

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.errors import OptionError
from ks_lottery.ticket.ownership.cells import matrices
from ks_lottery.ticket.ownership.mark import Source, magnitudes
from ks_lottery.ticket.ticket import Provenance, Ticket


def drop_smallest(ticket: Ticket, weights: Source, share: float) -> Ticket:
    """The ticket without its smallest weights.

    Args:
        ticket: over single weights.
        weights: a model with the magnitudes that the thief sees.
        share: of the selected weights of all matrices together, inside (0, 1); ties fall to the first.

    Raises:
        OptionError: if `share` is not inside (0, 1).
        TicketError: if the ticket is no weight ticket of single weights.
    """
    checkpoint = open_checkpoint(weights)
    sizes = {name: magnitudes(checkpoint, name).ravel()[ticket.indices[name]] for name in matrices(ticket)}
    return _without_lowest(ticket, sizes, share, "drop_smallest")


def drop_random(ticket: Ticket, share: float, seed: int) -> Ticket:
    """The ticket without a share of its weights, drawn over all matrices; errors as `drop_smallest`."""
    generator = np.random.default_rng(seed)
    draws = {name: generator.random(len(ticket.indices[name])) for name in matrices(ticket)}
    return _without_lowest(ticket, draws, share, "drop_random")


def add_random(ticket: Ticket, share: float, seed: int) -> Ticket:
    """The ticket with a share of the unselected weights of each matrix added, drawn; errors as `drop_smallest`."""
    _require_share(share)
    generator = np.random.default_rng(seed)
    indices = dict(ticket.indices)
    for name in matrices(ticket):
        free = np.setdiff1d(np.arange(ticket.selections[name].group.num_units), indices[name], assume_unique=True)
        added = generator.choice(free, size=round(share * len(free)), replace=False)
        indices[name] = np.concatenate([indices[name], added])
    return ticket.with_units(indices, Provenance("add_random", {"share": share, "of": ticket.fingerprint}))


def _without_lowest(ticket: Ticket, scores: Mapping[str, np.ndarray], share: float, method: str) -> Ticket:
    """Without a share of the weights, those with the lowest scores over all matrices."""
    _require_share(share)
    together = np.concatenate(list(scores.values()))
    kept = np.ones(len(together), dtype=bool)
    kept[np.argsort(together, kind="stable")[: round(share * len(together))]] = False
    indices, start = dict(ticket.indices), 0
    for name, of_matrix in scores.items():
        indices[name] = indices[name][kept[start : start + len(of_matrix)]]
        start += len(of_matrix)
    return ticket.with_units(indices, Provenance(method, {"share": share, "of": ticket.fingerprint}))


def _require_share(share: float) -> None:
    if not 0.0 < share < 1.0:
        raise OptionError(f"share={share}: must lie between 0 and 1, both excluded.")
