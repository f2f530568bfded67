"""Attention heads and layers by KS, beside other choices of as many."""

from itertools import combinations
from pathlib import Path

import numpy as np

from ks_lottery.ticket.markdown import MISSING, data_size, table
from replication.means import Means, shown, spread
from replication.page_short import capital, differences, verdict
from replication.parts import HEADS
from replication.plan import Plan


def head_section(plan: Plan, folder: Path) -> str:
    """Scores of heads and layers, and how many heads two tickets share."""
    del folder
    means, direction = Means(plan.lab), plan.setting.tuned_on
    rows = []
    for name in (*HEADS, "ks", "lora-8", "full"):
        scores = means.values(direction, name, "bleu_whole")
        if not scores:
            continue
        trained, size = means.cost(direction, name, "trainable"), means.cost(direction, name, "adapter_bytes")
        rows.append([
            plan.methods[name].title, f"{np.mean(trained):,.0f}", data_size(round(np.mean(size))), spread(scores),
            *(shown(means.mean(direction, name, key)) for key in ("bleu_first_line", "chrf_whole")),
            f"{means.mean(direction, name, 'stop_rate'):.0%}",
        ])  # fmt: skip
    if not any(means.values(direction, name, "bleu_whole") for name in HEADS):
        return "## Heads and layers\n\nNot run yet."
    said = [
        f"4 of 24 attention heads, or one of four layers, in en-{direction}; the shift that KS and move look at is "
        "that of full tuning. A head is its slices of the query, key, value and output matrices."
    ]
    for rival in ("heads-move", "heads-fisher", "heads-random", "lora-8"):
        if found := differences(plan.lab, "heads-ks", rival, (direction,)):
            said.append(f"{capital(verdict('heads by KS', plan.methods[rival].title, found))}.")
    if overlap := _overlap(plan):
        said.append(overlap)
    header = ["run", "weights", "adapter", "BLEU whole (replicates)", "BLEU first line", "chrF whole", "stops"]
    return "\n\n".join(["## Heads and layers", " ".join(said), table(header, rows)])


def _overlap(plan: Plan) -> str:
    """How many of 4 heads two tickets share: over seeds, over directions, and by chance."""
    lab, tickets = plan.lab, {}
    for direction in plan.setting.full_directions:
        for seed in plan.setting.seeds:
            name = lab.ticket_cell(direction, seed, "heads-ks")
            if name in lab.cells.cells and lab.cells.record(name) is not None:
                ticket = lab.ticket(direction, seed, "heads-ks")
                assert ticket is not None
                units = [(group, int(unit)) for group, indices in ticket.indices.items() for unit in indices]
                tickets[direction, seed] = set(units)
    pairs = [(one, other, float(len(tickets[one] & tickets[other]))) for one, other in combinations(tickets, 2)]
    seeds = [count for one, other, count in pairs if one[0] == other[0]]
    directions = [count for one, other, count in pairs if one[1] == other[1]]
    if not seeds or not directions:
        return "" if not pairs else MISSING
    return (
        f"Two tickets of 4 heads share {spread(seeds)} heads over replicates and {spread(directions)} over directions; "
        "two draws of 4 from 24 share 0.7 on average."
    )
