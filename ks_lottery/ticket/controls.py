"""Controls: tickets of the same kind and size, chosen otherwise. A ticket that does not beat them has won nothing."""

from collections.abc import Sequence

import numpy as np

from ks_lottery.errors import OptionError, TicketError
from ks_lottery.ticket.ticket import Provenance, Ticket


def random_like(
    ticket: Ticket,
    seed: int,
    *,
    among: Sequence[int] | np.ndarray | None = None,
    exclude: Sequence[int] | np.ndarray = (),
) -> Ticket:
    """Units drawn at random, as many in each group as the ticket has.

    Args:
        ticket: what to imitate.
        seed: of the draw; the same seed gives the same units on every machine.
        among: unit numbers to draw from; all if None. Rows that no training text uses get no gradient, so a fair
            draw is among rows that occur.
        exclude: unit numbers never drawn, for example the ticket's own and those of the prompt.

    Raises:
        TicketError: if fewer units are left than the ticket has.
    """
    generator = np.random.default_rng(seed)
    indices = {}
    for name, selection in ticket.selections.items():
        pool = np.setdiff1d(_pool(selection.group.num_units, among), np.asarray(exclude, dtype=np.int64))
        if len(pool) < len(selection):
            raise TicketError(
                f"A random control needs {len(selection)} units of group {name!r}, but only {len(pool)} are left to "
                "draw from. Exclude fewer, or draw among more."
            )
        indices[name] = generator.choice(pool, size=len(selection), replace=False)
    details = {"seed": seed, "like": ticket.fingerprint, "excluded": len(exclude), "among": _size(among)}
    return ticket.with_units(indices, Provenance("random_like", details))


def shuffled_like(ticket: Ticket, seed: int, *, among: Sequence[int] | np.ndarray | None = None) -> Ticket:
    """The ticket's own control: units redrawn within each group, as many as it has there, and not the same ones.

    A draw that gives the ticket itself is drawn again; it may share units with it, as chance has it. What is kept is
    how many units each group has, so a ticket that does not beat this one has found nothing but that. Where every group
    has one unit (layers), they are redrawn over all groups.

    Args:
        ticket: what to imitate.
        seed: of the draw; the same seed gives the same units on every machine.
        among: unit numbers to draw from; all if None. As for `random_like`.

    Raises:
        TicketError: if fewer units are left than the ticket has, or every group leaves but the ticket's own choice.

    Source:
        Frankle et al. 2020 (arXiv 2009.08576); Su et al. 2020 (arXiv 2009.11094), "rearrange".
    """
    generator = np.random.default_rng(seed)
    if all(selection.group.num_units == 1 for selection in ticket.selections.values()):
        return _redrawn_groups(ticket, generator, seed)
    pools = {name: _pool(selection.group.num_units, among) for name, selection in ticket.selections.items()}
    for name, units in ticket.indices.items():
        if len(pools[name]) < len(units):
            raise TicketError(
                f"A shuffled control needs {len(units)} units of group {name!r}, but only {len(pools[name])} are left "
                "to draw from. Draw among more."
            )
    if all(not len(units) or np.array_equal(units, pools[name]) for name, units in ticket.indices.items()):
        counts = ", ".join(f"{name}: {len(units)} of {len(pools[name])}" for name, units in ticket.indices.items())
        raise TicketError(
            f"The ticket has none or all units of each group ({counts}), so redrawing within groups changes nothing. "
            "Use a control that draws over all groups, or a ticket of another density."
        )
    details = {"seed": seed, "like": ticket.fingerprint, "among": _size(among)}
    while True:
        indices = {
            name: generator.choice(pools[name], size=len(units), replace=False)
            for name, units in ticket.indices.items()
        }
        shuffled = ticket.with_units(indices, Provenance("shuffled_like", details))
        if any(not np.array_equal(units, shuffled.indices[name]) for name, units in ticket.indices.items()):
            return shuffled


def _redrawn_groups(ticket: Ticket, generator: np.random.Generator, seed: int) -> Ticket:
    """As many groups as the ticket has, others, each with its one unit."""
    names = list(ticket.selections)
    if len(ticket) == len(names):
        raise TicketError(f"The ticket has all {len(names)} units, so redrawing changes nothing. Select fewer.")
    while True:
        drawn = generator.choice(len(names), size=len(ticket), replace=False)
        indices = {names[number]: np.zeros(1, dtype=np.int64) for number in drawn}
        shuffled = ticket.with_units(
            indices, Provenance("shuffled_like", {"seed": seed, "like": ticket.fingerprint, "among": None})
        )
        if shuffled != ticket:
            return shuffled


def frequency_like(ticket: Ticket, counts: Sequence[int] | np.ndarray, *, exclude: Sequence[int] = ()) -> Ticket:
    """The units that occur most often in the training text, as many in each group as the ticket has.

    Args:
        ticket: what to imitate.
        counts: [num_units] occurrences of each token; ties go to the smaller token id.
        exclude: unit numbers left out, for example padding.

    Raises:
        OptionError: if `counts` does not have one entry per unit.

    Source:
        Frequency Tuning, the control of Yuan et al. 2025 (KS-Lottery).
    """
    counts = np.array(counts, dtype=np.int64)
    indices = {}
    for name, selection in ticket.selections.items():
        _require_counts(counts, name, selection.group.num_units)
        ranked = np.argsort(-counts, kind="stable")
        ranked = ranked[~np.isin(ranked, np.asarray(exclude, dtype=np.int64))]
        indices[name] = ranked[: len(selection)]
    return ticket.with_units(indices, Provenance("frequency_like", {"like": ticket.fingerprint}))


def count_like(
    ticket: Ticket,
    counts: Sequence[int] | np.ndarray,
    seed: int,
    *,
    exclude: Sequence[int] | np.ndarray = (),
    nearest: int = 5,
) -> Ticket:
    """Units that occur about as often in the training text as the ticket's, one for each of them.

    For each unit of the ticket, the most frequent first, one is drawn among the `nearest` units that are left whose
    counts differ least from its count. Where the ticket holds the most frequent units there are no others as frequent:
    compare the two sums of counts before you call it a match.

    Args:
        ticket: what to imitate; its own units are not drawn.
        counts: [num_units] occurrences of each token; units that never occur are not drawn.
        seed: of the draw.
        exclude: further unit numbers never drawn, for example those of the prompt.
        nearest: how many units each draw is among.

    Raises:
        OptionError: if `counts` does not have one entry per unit.
        TicketError: if fewer units are left than the ticket has.
    """
    counts, generator, indices = np.array(counts, dtype=np.int64), np.random.default_rng(seed), {}
    for name, selection in ticket.selections.items():
        _require_counts(counts, name, selection.group.num_units)
        taken = np.union1d(selection.indices, np.asarray(exclude, dtype=np.int64))
        pool = np.setdiff1d(np.flatnonzero(counts), taken)
        if len(pool) < len(selection):
            raise TicketError(
                f"A control of equal counts needs {len(selection)} units of group {name!r}, but only {len(pool)} that "
                "occur are left to draw from. Exclude fewer."
            )
        drawn = []
        for unit in sorted(selection.indices, key=lambda unit: (-counts[unit], unit)):
            close = pool[np.argsort(np.abs(counts[pool] - counts[unit]), kind="stable")[:nearest]]
            drawn.append(int(generator.choice(close)))
            pool = pool[pool != drawn[-1]]
        indices[name] = np.array(drawn)
    details = {"seed": seed, "like": ticket.fingerprint, "excluded": len(exclude), "nearest": nearest}
    return ticket.with_units(indices, Provenance("count_like", details))


def these_rows(ticket: Ticket, rows: Sequence[int] | np.ndarray, name: str = "these_rows") -> Ticket:
    """Exactly the given units in every group: the rows of a prompt, one structural row, a list from a paper.

    Args:
        ticket: whose base model and groups to use.
        rows: unit numbers.
        name: what the control is called in tables.
    """
    units = np.unique(np.asarray(rows, dtype=np.int64))
    return ticket.with_units(dict.fromkeys(ticket.selections, units), Provenance(name, {"like": ticket.fingerprint}))


def structural_row(ticket: Ticket, row: int) -> Ticket:
    """One single unit, such as the newline token's row.

    An independent, unreviewed replication of KS-Lottery found that one structural row gives most of the gain of 18, so
    this control stands in every table.
    """
    return these_rows(ticket, [row], "structural_row")


def _pool(num_units: int, among: Sequence[int] | np.ndarray | None) -> np.ndarray:
    return np.arange(num_units) if among is None else np.unique(np.asarray(among, dtype=np.int64))


def _size(among: Sequence[int] | np.ndarray | None) -> int | None:
    return None if among is None else len(among)


def _require_counts(counts: np.ndarray, name: str, num_units: int) -> None:
    if counts.shape != (num_units,):
        raise OptionError(
            f"counts has shape {counts.shape}, but group {name!r} has {num_units} units; give one count per unit."
        )
