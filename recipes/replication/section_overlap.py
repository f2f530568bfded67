"""How many rows two tickets share, and what a ticket of one language is worth in another."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ks_lottery.ticket.markdown import MISSING, table
from ks_lottery.ticket.ticket import Ticket
from replication.laboratory import Laboratory
from replication.means import Means, spread
from replication.page_short import capital, differences, verdict
from replication.plan import Plan
from replication.tickets import rows_of

_FINDERS = ("move", "relative-move", "fisher", "frequency", "concrete")
Pairs = Iterator[tuple[Ticket, Ticket]]


def overlap_section(plan: Plan, folder: Path) -> str:
    """Shared rows over seeds, directions, prompts and finders."""
    del folder
    lab, setting = plan.lab, plan.setting
    kinds: dict[str, Callable[[], Pairs]] = {
        "another replicate (the ceiling)": lambda: _over_seeds(lab),
        "another direction, same replicate": lambda: _over_directions(lab),
        **{f"another prompt ({prompt})": lambda prompt=prompt: _beside(lab, f"ks-on-{prompt}")  # type: ignore[misc]
           for prompt in setting.paraphrases},
        **{plan.methods[name].title: lambda name=name: _beside(lab, name) for name in _FINDERS},  # type: ignore[misc]
    }  # fmt: skip
    rows = []
    for kind, pairs in kinds.items():
        shared, jaccard = [], []
        for one, other in pairs():
            mine, theirs = rows_of(one), rows_of(other)
            common = len(np.intersect1d(mine, theirs))
            shared.append(float(common))
            jaccard.append(common / len(np.union1d(mine, theirs)))
        if shared:
            rows.append([kind, spread(shared), spread(jaccard, 2), f"{len(shared)}"])
    if not rows:
        return "## Overlap\n\nNot run yet."
    vocabulary = 4096
    said = (
        f"Rows that the KS ticket of {setting.rows} rows shares with another ticket of as many; mean, smallest and "
        f"largest over the pairs. Two random draws from {vocabulary:,} rows share "
        f"{setting.rows**2 / vocabulary:.2f}. No overlap can be expected to exceed that of two replicates, which "
        "differ in their training pairs and order alone."
    )
    return "\n\n".join(["## Overlap", said, table(["with", "shared rows", "Jaccard", "pairs"], rows)])


def crossing_section(plan: Plan, folder: Path) -> str:
    """Tickets of other directions, of all directions, and the union and intersection of them."""
    del folder
    means, full = Means(plan.lab), plan.setting.full_directions
    rows = []
    for name in (*(f"ks-of-{donor}" for donor in full), "union", "intersection", "replicated"):
        cells = []
        for direction in full:
            own = name == f"ks-of-{direction}"
            cells.append(spread(means.values(direction, "ks" if own else name, "bleu_whole")))
        if any(cell != MISSING for cell in cells):
            counts = [spread(_units(plan.lab, direction, name), 0) for direction in full]
            rows.append([plan.methods[name].title, counts[0] if len(set(counts)) == 1 else "; ".join(counts), *cells])
    if not any(means.values(direction, "union", "bleu_whole") for direction in full):
        return "## Tickets of other languages\n\nNot run yet."
    said = [
        "Rows found in one direction, trained in another (each column is trained and tested in its direction; on the "
        "diagonal the ticket's own). All take over the learning rate of the KS rows."
    ]
    for name in ("union", "intersection"):
        if found := differences(plan.lab, name, "ks"):
            said.append(f"{capital(verdict(plan.methods[name].title, 'its own KS rows', found))}.")
    foreign = [plan_difference for donor in full
               if (plan_difference := differences(plan.lab, f"ks-of-{donor}", "ks"))]  # fmt: skip
    worse = sum(one.shown and one.mean < 0 for found in foreign for one in found.values())
    total = sum(len(found) for found in foreign)
    if total:
        said.append(
            f"In {worse} of {total} pairs of directions the foreign ticket is shown to score lower than the own."
        )
    header = ["rows", "how many", *(f"en-{direction}" for direction in full)]
    return "\n\n".join(["## Tickets of other languages", " ".join(said), table(header, rows)])


def _ticket(lab: Laboratory, direction: str, seed: int, name: str) -> Ticket | None:
    cell = lab.ticket_cell(direction, seed, name)
    if cell not in lab.cells.cells or lab.cells.record(cell) is None:
        return None
    return lab.ticket(direction, seed, name)


def _units(lab: Laboratory, direction: str, name: str) -> list[float]:
    kept = "ks" if name == f"ks-of-{direction}" else name
    found = [_ticket(lab, direction, seed, kept) for seed in lab.setting.seeds]
    return [float(len(ticket)) for ticket in found if ticket is not None]


def _pairs(lab: Laboratory, places: list[tuple[tuple[str, int, str], tuple[str, int, str]]]) -> Pairs:
    for one, other in places:
        mine, theirs = _ticket(lab, *one), _ticket(lab, *other)
        if mine is not None and theirs is not None:
            yield mine, theirs


def _over_seeds(lab: Laboratory) -> Pairs:
    seeds = lab.setting.seeds
    return _pairs(lab, [((name, one, "ks"), (name, other, "ks")) for name in lab.setting.full_directions
                        for place, one in enumerate(seeds) for other in seeds[place + 1 :]])  # fmt: skip


def _over_directions(lab: Laboratory) -> Pairs:
    names = lab.setting.full_directions
    return _pairs(lab, [((one, seed, "ks"), (other, seed, "ks")) for seed in lab.setting.seeds
                        for place, one in enumerate(names) for other in names[place + 1 :]])  # fmt: skip


def _beside(lab: Laboratory, name: str) -> Pairs:
    return _pairs(lab, [((direction, seed, "ks"), (direction, seed, name)) for direction in lab.setting.full_directions
                        for seed in lab.setting.seeds])  # fmt: skip
