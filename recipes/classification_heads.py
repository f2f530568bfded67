"""The tickets of a classification run: attention heads by two finders, and two controls of the same size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ks_lottery.checkpoints.reader import Checkpoint
from ks_lottery.evaluation.sanity import inverted_like
from ks_lottery.finders.base import UnitScores
from ks_lottery.finders.search import score_units, select_ticket
from ks_lottery.finders.select import TopK
from ks_lottery.ticket.controls import random_like
from ks_lottery.ticket.ticket import Ticket

KS_HEADS = "KS heads"
MAGNITUDE_HEADS = "magnitude heads"
RANDOM_HEADS = "random heads"
INVERTED_HEADS = "inverted heads"
_FINDERS = {KS_HEADS: "ks", MAGNITUDE_HEADS: "magnitude"}


@dataclass(frozen=True)
class HeadTickets:
    """What was found between the two ends of a probe.

    Attributes:
        tickets: name of the row in the score table to ticket, the found ones first.
        heads: one entry per attention head of the model: `group`, `id`, `statistic` (D), `log10_p`, `ks_score`,
            `shift`, `relative_shift` and the names of the tickets that have it, `in`.
    """

    tickets: Mapping[str, Ticket]
    heads: Sequence[Mapping[str, Any]]


def find_heads(before: Checkpoint, after: Path, top_k: int, control_seed: int) -> HeadTickets:
    """Score every head by both finders and choose the same number of heads four times.

    The random heads are as many in each layer as the KS ticket has, and may be some of its own; the inverted ones are
    those that KS puts last.

    Raises:
        TicketError: if fewer heads changed than are asked for, or all heads are selected.
    """
    scores = {name: score_units(before, after, "heads", finder) for name, finder in _FINDERS.items()}
    tickets = {
        name: select_ticket(scores[name], before, after, "heads", finder, TopK(top_k))
        for name, finder in _FINDERS.items()
    }
    found = tickets[KS_HEADS]
    tickets[RANDOM_HEADS] = random_like(found, control_seed)
    tickets[INVERTED_HEADS] = inverted_like(found, scores[KS_HEADS])
    return HeadTickets(tickets, list(_described(scores[KS_HEADS], tickets)))


def _described(scores: Sequence[UnitScores], tickets: Mapping[str, Ticket]) -> Any:
    for entry in scores:
        holders = {name: set(ticket.indices[entry.group.name].tolist()) for name, ticket in tickets.items()}
        columns = {name: entry.columns[name].tolist() for name in ("statistic", "log_p", "shift", "relative_shift")}
        for unit, score in enumerate(entry.score.tolist()):
            yield {
                "group": entry.group.name,
                "id": unit,
                "statistic": columns["statistic"][unit],
                "log10_p": columns["log_p"][unit] / np.log(10.0),
                "ks_score": score,
                "shift": columns["shift"][unit],
                "relative_shift": columns["relative_shift"][unit],
                "in": [name for name, units in holders.items() if unit in units],
            }
