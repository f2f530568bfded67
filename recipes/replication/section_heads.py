"""Attention heads and layers by KS, beside other choices of as many."""

from pathlib import Path

import numpy as np

from ks_lottery.ticket.markdown import data_size, table
from replication.means import Means, shown, spread
from replication.page_short import capital, differences, verdict
from replication.parts import HEADS
from replication.plan import Plan
from replication.ticket_pairs import over_directions, over_seeds, shared_units


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
    """How many heads two tickets share: over seeds, over directions, and by chance; "" without such pairs."""
    pairs = {
        kind: list(of(plan.lab, "heads-ks")) for kind, of in (("seeds", over_seeds), ("directions", over_directions))
    }
    if not all(pairs.values()):
        return ""
    shared = {kind: spread([float(shared_units(*pair)) for pair in found]) for kind, found in pairs.items()}
    ticket = pairs["seeds"][0][0]
    heads, every = len(ticket), sum(selection.group.num_units for selection in ticket.selections.values())
    return (
        f"Two tickets of {heads} heads share {shared['seeds']} heads over replicates and {shared['directions']} over "
        f"directions; two draws of {heads} from {every} share {heads**2 / every:.1f} on average."
    )
