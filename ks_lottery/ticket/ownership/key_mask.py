"""V1: a ticket in two parts, one to publish and one to keep, that are worth little alone."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.errors import OptionError, TicketError, UnitError
from ks_lottery.ticket.ownership.cells import mask_of, matrices
from ks_lottery.ticket.ownership.mark import Source, magnitudes
from ks_lottery.ticket.ticket import Provenance, Ticket

Statistic = Literal["magnitude", "path", "random"]
Scores = Mapping[str, NDArray[np.floating]]


def key_scores(ticket: Ticket, base: Source, statistic: Statistic, seed: int | None = None) -> dict[str, np.ndarray]:
    """Score the weights of a ticket for `split_ticket`.

    magnitude: |w|. path: the sum, over all paths from an input to an output that pass through the weight, of the
    product of all |w| on them, for matrices that follow each other in the ticket's order; each layer's scores are
    divided by their common total. For a transformer, where paths branch, give the scores of the finder synflow.
    random: a draw. Edge betweenness is not here: over channels it is a shortest-path search per node; own scores can be
    passed to `split_ticket`.

    Args:
        ticket: a weight ticket of single weights.
        base: the model with the weights.
        statistic: "magnitude", "path" or "random".
        seed: of "random", as secret as the key itself; drawn from the system if None.

    Returns:
        matrix name to [weights] float64.

    Raises:
        OptionError: if the statistic is unknown.
        TicketError: if the ticket is of another kind, or its matrices are no chain ("path").
        UnitError: if a weight is not finite.
    """
    shapes = matrices(ticket)
    if statistic not in get_args(Statistic):
        raise OptionError(f"statistic={statistic!r}: must be one of {', '.join(get_args(Statistic))}.")
    if statistic == "random":
        generator = np.random.default_rng(seed)
        return {name: generator.random(rows * columns) for name, (rows, columns) in shapes.items()}
    checkpoint = open_checkpoint(base)
    sizes = {name: magnitudes(checkpoint, name).astype(np.float64) for name in shapes}
    return _path_scores(ticket, sizes) if statistic == "path" else {n: size.ravel() for n, size in sizes.items()}


def split_ticket(ticket: Ticket, scores: Scores, key_size: float = 0.1) -> tuple[Ticket, Ticket]:
    """Split a ticket into a locked ticket, to publish, and a key: the selected weights with the largest scores.

    Args:
        ticket: a weight ticket of single weights.
        scores: matrix name to [weights] scores, from `key_scores` or a finder; only selected weights are looked at.
        key_size: share of the selected weights that the key takes, over all matrices together; ties go to the first.

    Returns:
        the locked ticket, and the key. `key.save` writes a file like any other: put it where only you can read.

    Raises:
        OptionError: if `key_size` leaves the key or the locked ticket empty.
        TicketError: if the ticket is of another kind.
        UnitError: if scores are missing, of another length, or not finite.

    Source:
        Chen et al. 2021 (NeurIPS), scheme V1, algorithm 1, whose indicator must be that of the statistic above the
        n-th largest, not of the mask.
    """
    names = list(matrices(ticket))
    chosen = np.concatenate([_scores_of(ticket, scores, name) for name in names] or [np.zeros(0)])
    count = round(key_size * len(chosen)) if 0.0 < key_size < 1.0 else 0
    if not 0 < count < len(chosen):
        raise OptionError(
            f"key_size={key_size} of {len(chosen)} selected weights: the key and the locked ticket must both have some."
        )
    in_key = np.zeros(len(chosen), dtype=bool)
    in_key[np.argsort(-chosen, kind="stable")[:count]] = True
    key, locked, start = {}, dict(ticket.indices), 0
    for name in names:
        part = in_key[start : start + len(ticket.indices[name])]
        key[name], locked[name] = ticket.indices[name][part], ticket.indices[name][~part]
        start += len(part)
    details = {"of": ticket.fingerprint, "key_size": key_size}
    own = {"method": ticket.provenance.method, "details": dict(ticket.provenance.details)}
    return (
        ticket.with_units(locked, Provenance("locked", details)),
        ticket.with_units(key, Provenance("key", {**details, "provenance": own})),
    )


def unlock(locked: Ticket, key: Ticket) -> Ticket:
    """The ticket that `split_ticket` split.

    Raises:
        TicketError: if the key does not belong to the locked ticket, or one of them is none.
    """
    if locked.provenance.method != "locked" or key.provenance.method != "key":
        raise TicketError(
            f"A locked ticket and a key are needed, and these are tickets by {locked.provenance.method!r} and "
            f"{key.provenance.method!r}. split_ticket makes both."
        )
    locked.same_units(key)
    own = key.provenance.details.get("provenance", {})
    whole = (locked | key).with_units(
        (locked | key).indices, Provenance(str(own.get("method", "unlocked")), own.get("details", {}))
    )
    if whole.fingerprint != locked.provenance.details.get("of"):
        raise TicketError(
            f"The key does not open this ticket: together they have fingerprint {whole.fingerprint[:12]}, and "
            f"{str(locked.provenance.details.get('of'))[:12]} was locked. Use the key of the same split."
        )
    return whole


def _scores_of(ticket: Ticket, scores: Scores, name: str) -> np.ndarray:
    given, units = scores.get(name), ticket.selections[name].group.num_units
    if given is None or np.shape(given) != (units,):
        has = "none" if given is None else f"an array of shape {np.shape(given)}"
        raise UnitError(f"Scores of {name!r}: {has}; give one for each of its {units} weights.")
    chosen = np.asarray(given, dtype=np.float64)[ticket.indices[name]]
    if not np.isfinite(chosen).all():
        place = ticket.indices[name][int(np.argmin(np.isfinite(chosen)))]
        raise UnitError(f"The score of weight {place} of {name!r} is not finite. Score the weights again.")
    return chosen


def _path_scores(ticket: Ticket, sizes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Path products of a chain of matrices [outputs, inputs]."""
    names = list(sizes)
    for one, other in pairwise(names):
        if sizes[other].shape[1] != sizes[one].shape[0]:
            raise TicketError(
                f"Paths need matrices that follow each other, and {other!r} takes {sizes[other].shape[1]} inputs after "
                f"{one!r} with {sizes[one].shape[0]} outputs. Give the scores of the finder synflow instead."
            )
    weights = [sizes[name] * mask_of(ticket, name) for name in names]
    arriving, leaving = [np.ones(weights[0].shape[1])], [np.ones(weights[-1].shape[0])]
    for weight in weights[:-1]:
        arriving.append(_scaled(weight @ arriving[-1]))
    for weight in weights[:0:-1]:
        leaving.append(_scaled(leaving[-1] @ weight))
    scores = {}
    for name, weight, into, out in zip(names, weights, arriving, reversed(leaving), strict=True):
        score = out[:, None] * weight * into[None, :]
        total = score.sum()
        scores[name] = (score / total if total else score).ravel()
    return scores


def _scaled(sums: np.ndarray) -> np.ndarray:
    return sums / sums.max() if sums.max() > 0 else sums
