"""Pairs of tickets of a study, and how many units two tickets share."""

from collections.abc import Iterator
from itertools import combinations

from ks_lottery.ticket.algebra import combine
from ks_lottery.ticket.ticket import Ticket
from replication.laboratory import Laboratory

Pairs = Iterator[tuple[Ticket, Ticket]]
Place = tuple[str, int, str]


def shared_units(one: Ticket, other: Ticket) -> int:
    """How many units two tickets share, over all groups."""
    return sum(map(len, combine("&", one.indices, other.indices).values()))


def over_seeds(lab: Laboratory, ticket: str = "ks") -> Pairs:
    """Two seeds of one direction."""
    setting = lab.setting
    return _found(lab, [((name, one, ticket), (name, other, ticket)) for name in setting.full_directions
                        for one, other in combinations(setting.seeds, 2)])  # fmt: skip


def over_directions(lab: Laboratory, ticket: str = "ks") -> Pairs:
    """Two directions of one seed."""
    setting = lab.setting
    return _found(lab, [((one, seed, ticket), (other, seed, ticket)) for seed in setting.seeds
                        for one, other in combinations(setting.full_directions, 2)])  # fmt: skip


def beside(lab: Laboratory, ticket: str) -> Pairs:
    """The KS ticket and another one of the same direction and seed."""
    setting = lab.setting
    return _found(lab, [((name, seed, "ks"), (name, seed, ticket)) for name in setting.full_directions
                        for seed in setting.seeds])  # fmt: skip


def _found(lab: Laboratory, places: list[tuple[Place, Place]]) -> Pairs:
    """The pairs of which both were found."""
    for one, other in places:
        mine, theirs = lab.known_ticket(*one), lab.known_ticket(*other)
        if mine is not None and theirs is not None:
            yield mine, theirs
