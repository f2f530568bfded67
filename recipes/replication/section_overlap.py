"""How many rows two tickets share, and what a ticket of one language is worth in another."""

from collections.abc import Callable
from pathlib import Path

from ks_lottery.ticket.algebra import jaccard
from ks_lottery.ticket.markdown import MISSING, table
from replication.means import Means, spread
from replication.page_short import capital, differences, verdict
from replication.plan import Plan
from replication.ticket_pairs import Pairs, beside, over_directions, over_seeds, shared_units

_FINDERS = ("move", "relative-move", "fisher", "frequency", "concrete")


def overlap_section(plan: Plan, folder: Path) -> str:
    """Shared rows over seeds, directions, prompts and finders."""
    del folder
    lab, setting = plan.lab, plan.setting
    kinds: dict[str, Callable[[], Pairs]] = {
        "another replicate (the ceiling)": lambda: over_seeds(lab),
        "another direction, same replicate": lambda: over_directions(lab),
        **{f"another prompt ({prompt})": lambda prompt=prompt: beside(lab, f"ks-on-{prompt}")  # type: ignore[misc]
           for prompt in setting.paraphrases},
        **{plan.methods[name].title: lambda name=name: beside(lab, name) for name in _FINDERS},  # type: ignore[misc]
    }  # fmt: skip
    rows, vocabulary = [], 1
    for kind, pairs in kinds.items():
        found = list(pairs())
        if found:
            shared = spread([float(shared_units(one, other)) for one, other in found])
            share = spread([jaccard(one.indices, other.indices) for one, other in found], 2)
            rows.append([kind, shared, share, f"{len(found)}"])
            (vocabulary,) = (selection.group.num_units for selection in found[0][0].selections.values())
    if not rows:
        return "## Overlap\n\nNot run yet."
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
            counts = [spread(means.units(direction, "ks" if name == f"ks-of-{direction}" else name), 0)
                      for direction in full]  # fmt: skip
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
