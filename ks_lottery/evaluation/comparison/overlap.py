"""How much the tickets of a comparison have in common."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

from ks_lottery.evaluation.compare import Comparison
from ks_lottery.evaluation.comparison.cells import Cell
from ks_lottery.ticket.ticket import Ticket


def overlaps(comparison: Comparison) -> list[dict[str, Any]]:
    """Jaccard similarity of the tickets of every two finders in one replicate, and of one finder in two replicates.

    Random draws stand among the finders; tickets that were found on one task are compared.

    Returns:
        per pair: `units`, `kind`, `task`, `density`, `first`, `second` (methods), `first_replicate`,
        `second_replicate`, `jaccard`, and `chance`: that of two draws with as many units per group, on average
        (expected intersection over expected union), among the units that the random control draws from.
    """
    tickets = dict(_tickets(comparison))
    found = []
    for one, other in combinations(tickets, 2):
        same = (one.table, one.task, one.density) == (other.table, other.task, other.density)
        if same and (one.replicate == other.replicate) != (one.method == other.method):
            first, second = tickets[one], tickets[other]
            table, among = comparison.plan.tables[one.table], comparison.search(one).candidates()
            found.append(
                {
                    "units": table.units, "kind": table.kind, "task": one.task, "density": one.density,
                    "first": one.method, "second": other.method, "first_replicate": one.replicate,
                    "second_replicate": other.replicate, "jaccard": first.jaccard(second),
                    "chance": chance_overlap(first, second, None if among is None else len(among)),
                }
            )  # fmt: skip
    return found


def chance_overlap(first: Ticket, second: Ticket, among: int | None = None) -> float:
    """Expected intersection over expected union of two independent draws with the groups' counts of two tickets.

    Args:
        first: a ticket.
        second: another one over the same groups.
        among: how many units of each group chance may draw; all if None.
    """
    shared = sum(
        len(first.selections[name]) * len(second.selections[name]) / (among or first.selections[name].group.num_units)
        for name in first.selections
    )
    return shared / (len(first) + len(second) - shared)


def _tickets(comparison: Comparison) -> Iterator[tuple[Cell, Ticket]]:
    made = {record.cell for record in comparison.records() if not record.error}
    for cell, mark in comparison.cells:
        own = cell.role == "finder" or (cell.control == "random" and not cell.of)
        if own and cell.task == cell.found_on and mark in made:
            yield cell, comparison.ticket(cell)
