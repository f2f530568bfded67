"""The tickets of the study: the paper's, its rivals and its controls, each found by one cell."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.errors import TicketError
from ks_lottery.finders.masks.concrete import ConcreteTicketSearch
from ks_lottery.finders.masks.frozen import Frozen
from ks_lottery.finders.saliency.batches import Batches, batches_of
from ks_lottery.finders.search import find_ticket
from ks_lottery.finders.select import Alpha, Density, Selector, TopK
from ks_lottery.finders.shift.magnitude import Magnitude
from ks_lottery.ticket.controls import count_like, frequency_like, random_like, structural_row, these_rows
from ks_lottery.ticket.ticket import Ticket
from replication.laboratory import Laboratory

Find = Callable[[Laboratory, str, int], Ticket]
_BATCHES = 40


@dataclass(frozen=True)
class TicketPlan:
    """How one ticket is found.

    Attributes:
        find: (laboratory, direction, seed) to the ticket.
        probes: methods of the same direction and seed whose trained weights it looks at.
        tickets: tickets of the same direction and seed that it is made of.
        others: tickets of further (direction, seed) that it is made of: a function of (laboratory, direction, seed).
    """

    find: Find
    probes: tuple[str, ...] = ()
    tickets: tuple[str, ...] = ()
    others: Callable[[Laboratory, str, int], list[tuple[str, int, str]]] = lambda *_: []

    def needs(self, lab: Laboratory, direction: str, seed: int) -> tuple[str, ...]:
        """Names of the cells that come before."""
        names = [cell for probe in self.probes for cell in lab.trainings(direction, seed, probe)]
        names += [lab.ticket_cell(direction, seed, ticket) for ticket in self.tickets]
        return (*names, *(lab.ticket_cell(*other) for other in self.others(lab, direction, seed)))


def find_cell(lab: Laboratory, plan: TicketPlan, direction: str, seed: int, folder: Path) -> dict[str, Any]:
    """Find a ticket and save it; the result says why, where nothing or everything was selected."""
    try:
        ticket = plan.find(lab, direction, seed)
    except TicketError as error:
        return {"units": 0, "weights": 0, "empty": str(error)}
    ticket.save(folder / "ticket")
    counts = lab.bench(direction).counts(seed)
    result = {"units": len(ticket), "weights": ticket.num_trainable(), "fingerprint": ticket.fingerprint}
    if ticket.granularity == "token_rows":
        rows = rows_of(ticket)
        result["count"] = int(counts.training[rows].sum())
        result["of_prompt"] = int((counts.prompt[rows] > 0).sum())
    return result


def rows_of(ticket: Ticket) -> np.ndarray:
    """The token rows of a ticket."""
    (rows,) = ticket.indices.values()
    return rows


def shifted(
    probe: str, finder: Any, selector: Callable[[Laboratory], Selector], units: str = "token_rows"
) -> TicketPlan:
    """A ticket by the shift between the two ends of a probe."""

    def find(lab: Laboratory, direction: str, seed: int) -> Ticket:
        ends = lab.folder(direction, seed, probe) / "probe"
        before, after = open_checkpoint(ends / "before"), open_checkpoint(ends / "after")
        return find_ticket(before, after, units, finder, selector(lab))

    return TicketPlan(find, probes=(probe,))


def fisher(count: Callable[[Laboratory], int], units: str = "token_rows") -> TicketPlan:
    """A ticket by the squared gradients of the base model."""

    def find(lab: Laboratory, direction: str, seed: int) -> Ticket:
        bench = lab.bench(direction)
        evidence = Batches(bench.base(), _batches(lab, direction, seed))
        return find_ticket(evidence.model, None, units, "fisher", TopK(count(lab)), evidence=evidence)

    return TicketPlan(find)


def concrete(count: Callable[[Laboratory], int], steps: int = 240) -> TicketPlan:
    """A ticket by a search over the update of embed tuning."""

    def find(lab: Laboratory, direction: str, seed: int) -> Ticket:
        bench = lab.bench(direction)
        after = open_checkpoint(lab.folder(direction, seed, "embed") / "probe" / "after")
        density = count(lab) / bench.pretrained.vocabulary
        model = bench.base().requires_grad_(False)
        evidence = Frozen(model, _batches(lab, direction, seed), after=after)
        finder = ConcreteTicketSearch(kind="update", density=density, steps=steps, seed=seed)
        return find_ticket(model, None, "token_rows", finder, Density(density), evidence=evidence)

    return TicketPlan(find, probes=("embed",))


def control(like: str, make: Callable[[Laboratory, str, int, Ticket], Ticket]) -> TicketPlan:
    """A ticket that imitates another one."""

    def find(lab: Laboratory, direction: str, seed: int) -> Ticket:
        return make(lab, direction, seed, _require(lab, direction, seed, like))

    return TicketPlan(find, tickets=(like,))


def frequent(lab: Laboratory, direction: str, seed: int, like: Ticket) -> Ticket:
    """The most frequent rows."""
    return frequency_like(like, lab.bench(direction).counts(seed).training)


def as_frequent(lab: Laboratory, direction: str, seed: int, like: Ticket) -> Ticket:
    """Rows of about the same counts, none of the prompt."""
    counts = lab.bench(direction).counts(seed)
    return count_like(like, counts.training, seed, exclude=np.flatnonzero(counts.prompt))


def as_frequent_or_structural(lab: Laboratory, direction: str, seed: int, like: Ticket) -> Ticket:
    """Rows of about the same counts, those of the prompt among them."""
    return count_like(like, lab.bench(direction).counts(seed).training, seed)


def newline(lab: Laboratory, direction: str, seed: int, like: Ticket) -> Ticket:
    """The row of the prompt's last token, a line break."""
    return structural_row(like, lab.bench(direction).counts(seed).last)


def of_prompt(lab: Laboratory, direction: str, seed: int, like: Ticket) -> Ticket:
    """All rows of the prompt."""
    return these_rows(like, np.flatnonzero(lab.bench(direction).counts(seed).prompt), "prompt_rows")


def all_others(lab: Laboratory, direction: str, seed: int, like: Ticket) -> Ticket:
    """Every row of the embedding but the ticket's."""
    everything = np.arange(lab.bench(direction).pretrained.vocabulary)
    return these_rows(like, np.setdiff1d(everything, rows_of(like)), "all_others")


def as_many_at_random(lab: Laboratory, direction: str, seed: int, like: Ticket) -> Ticket:
    """As many units in each group, drawn at random, none of the ticket's."""
    del lab, direction
    (taken,) = like.indices.values() if len(like.indices) == 1 else (np.array([], dtype=np.int64),)
    return random_like(like, seed, exclude=taken)


def merged_over_directions(operation: str) -> TicketPlan:
    """Union or intersection of the tickets of all full directions, of one seed."""

    def members(lab: Laboratory, _: str, seed: int) -> list[tuple[str, int, str]]:
        return [(direction, seed, "ks") for direction in lab.setting.full_directions]

    def find(lab: Laboratory, direction: str, seed: int) -> Ticket:
        own = _require(lab, direction, seed)
        found = [ticket for member in members(lab, direction, seed) if (ticket := lab.ticket(*member)) is not None]
        rows = rows_of(found[0])
        for ticket in found[1:]:
            rows = (np.union1d if operation == "union" else np.intersect1d)(rows, rows_of(ticket))
        if not len(rows):
            raise TicketError("The tickets of the directions share no row.")
        return these_rows(own, rows, operation)

    return TicketPlan(find, tickets=("ks",), others=members)


def of_direction(donor: str) -> TicketPlan:
    """The ticket of another direction, of the same seed."""

    def find(lab: Laboratory, direction: str, seed: int) -> Ticket:
        del direction
        return _require(lab, donor, seed)

    return TicketPlan(find, others=lambda lab, _, seed: [(donor, seed, "ks")])


def _require(lab: Laboratory, direction: str, seed: int, name: str = "ks") -> Ticket:
    ticket = lab.ticket(direction, seed, name)
    if ticket is None:
        raise TicketError(
            f"There is no ticket {name!r} of {direction}, seed {seed}: nothing, or everything, was selected."
        )
    return ticket


def _batches(lab: Laboratory, direction: str, seed: int) -> Any:
    bench = lab.bench(direction)
    examples, size = bench.examples(seed), lab.setting.batch_size
    return batches_of(examples, bench.collator, size, min(_BATCHES, len(examples) // size), seed)


def _rows(lab: Laboratory) -> int:
    return lab.setting.rows


def _ranked(lab: Laboratory) -> Selector:
    return TopK(lab.setting.rows)


def at_alpha(alpha: float) -> TicketPlan:
    """The paper's rule."""
    return shifted("embed", "ks", lambda _: Alpha(alpha))


def of_size(count: int, finder: Any = "ks", probe: str = "embed", units: str = "token_rows") -> TicketPlan:
    """The units with the largest scores, a given number."""
    return shifted(probe, finder, lambda _: TopK(count), units)


def own_probe(prompt: str) -> TicketPlan:
    """The paper's ticket, found by embed tuning on another prompt."""
    return shifted(f"embed-{prompt}", "ks", _ranked)


def basic_tickets() -> dict[str, TicketPlan]:
    """The tickets that every direction and seed has."""
    return {
        "ks": shifted("embed", "ks", _ranked),
        "move": shifted("embed", "magnitude", _ranked),
        "relative-move": shifted("embed", Magnitude(relative_to="before"), _ranked),
        "fisher": fisher(_rows),
        "frequency": control("ks", frequent),
        "count-matched": control("ks", as_frequent),
        "count-matched-structural": control("ks", as_frequent_or_structural),
        "newline": control("ks", newline),
        "all-others": control("ks", all_others),
    }
