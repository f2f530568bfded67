"""The main tables of the study: scores and costs of every method, and the learning rates that were tried."""

from pathlib import Path

import numpy as np

from ks_lottery.ticket.markdown import MISSING, data_size, table
from replication.laboratory import Laboratory
from replication.means import Means, shown, spread
from replication.methods import Trained
from replication.paired import Paired, paired_difference
from replication.plan import Plan

_HEADER = (
    "run", "weights", "adapter", "steps", "seconds", "BLEU whole (replicates)", "BLEU first line", "chrF whole",
    "chrF first line", "stops", "against embed tuning", "against most frequent",
)  # fmt: skip
_RIVALS = ("embed", "frequency")


def main_tables(plan: Plan, folder: Path) -> str:
    """A table for each direction: means over replicates, with the smallest and the largest."""
    del folder
    parts = [
        "## Scores and costs",
        "*Whole*: everything the model wrote. *First line*: only the first line that is not blank. *Stops*: share of "
        "translations that ended by themselves. *Seconds*: of one training on one core that shared the machine, median "
        "over replicates. The two last columns are paired differences of BLEU, whole text; in bold where a difference "
        "is shown. A ticket without rows is the base model. Most frequent, equal counts, move, Fisher and the rest "
        "have as many rows as the KS ticket beside them.",
    ]
    for direction in plan.setting.directions:
        names = plan.setting.brief_methods if direction in plan.setting.brief else plan.setting.methods
        rows = [row for name in names if (row := _row(plan, direction, name)) is not None]
        if rows:
            title = f"### en-{direction}" if direction not in plan.setting.brief else f"### {_of(direction)}"
            parts += [title, table(_HEADER, rows)]
    return "\n\n".join(parts)


def tries_table(plan: Plan, folder: Path) -> str:
    """Every learning rate that was tried, with its score on the development sentences."""
    del folder
    lab, rows, edges = plan.lab, [], []
    for direction in (plan.setting.tuned_on, *plan.setting.brief):
        for name, method in plan.methods.items():
            if not isinstance(method, Trained) or name in lab.borrowed:
                continue
            tries = _tries(lab, direction, name)
            if not tries:
                continue
            best = max(tries, key=lambda rate: tries[rate])
            at_edge = best in (min(tries), max(tries))
            edges += [method.title] * at_edge
            cells = [
                f"{rate:g}: {f'**{score:.1f}**' if rate == best else f'{score:.1f}'}" for rate, score in tries.items()
            ]
            cells += [MISSING] * (plan.setting.tries - len(cells))
            rows.append([method.title, f"en-{direction}", *cells, "yes" if at_edge else ""])
    if not rows:
        return "## Learning rates\n\nNot run yet."
    header = ["run", "tried on", *(f"try {number + 1}" for number in range(plan.setting.tries)), "best at the edge"]
    said = (
        f"Rate and BLEU on {plan.setting.dev_sentences} development sentences, first replicate; the best in bold. "
        f"Every method has {plan.setting.tries} tries; tickets of other directions, unions, intersections and rows "
        "that replicate take over the rate of the KS rows. "
        f"{len(edges)} of {len(rows)} methods are best at the edge of what was tried, and might gain from more tries."
    )
    return "\n\n".join(["## Learning rates", said, table(header, rows)])


def stopping_table(plan: Plan, folder: Path) -> str:
    """How much of each method's gain is stopping in the right place."""
    del folder
    means, full = Means(plan.lab), plan.setting.full_directions
    rows = []
    for name in plan.setting.methods:
        cells, known = [plan.methods[name].title], False
        for direction in full:
            whole, first = (means.gain(direction, name, f"bleu_{text}") for text in ("whole", "first_line"))
            if name == "base" or whole is None or first is None:
                cells += [MISSING] * 3
                continue
            known = True
            share = means.stopping_share(direction, name)
            cells += [
                f"{whole:+.1f}",
                f"{first:+.1f}",
                "too small" if share is None else f"{round(share, 2) + 0.0:.0%}",
            ]
        if known:
            rows.append(cells)
    header = ["run", *(f"en-{direction} {what}" for direction in full for what in ("whole", "first line", "share"))]
    said = (
        "A model that translates and then goes on scores low on the whole text and well on its first line; tuning that "
        "only teaches it to stop gains on the whole text alone. *Share* is 1 - (gain of the first line) / (gain of the "
        "whole text), where the gain is at least 1 BLEU. In the replication with LLaMA-7B it is 94 % and more. "
        "It is negative where a method translates and does not stop."
    )
    base = [f"en-{name} {shown(means.mean(name, 'base', 'bleu_first_line'))}" for name in full]
    said += f" The untuned model's first line scores {', '.join(base)}: it has no translation yet after which to stop."
    return "\n\n".join(["## How much of the gain is stopping", said, table(header, rows)]) if rows else ""


def _row(plan: Plan, direction: str, name: str) -> list[str] | None:
    means = Means(plan.lab)
    whole = means.values(direction, name, "bleu_whole")
    if not whole:
        return None
    costs = {key: means.cost(direction, name, key) for key in ("trainable", "adapter_bytes", "steps", "train_seconds")}
    against = [(paired_difference(plan.lab, direction, name, rival), name == rival) for rival in _RIVALS]
    return [
        plan.methods[name].title,
        _count(costs["trainable"]),
        data_size(round(np.mean(costs["adapter_bytes"]))) if any(costs["adapter_bytes"]) else MISSING,
        _count(costs["steps"]),
        f"{np.median(costs['train_seconds']):.0f}" if any(costs["train_seconds"]) else MISSING,
        spread(whole),
        *(shown(means.mean(direction, name, key)) for key in ("bleu_first_line", "chrf_whole", "chrf_first_line")),
        f"{means.mean(direction, name, 'stop_rate'):.0%}",
        *(_marked(*found) for found in against),
    ]


def _count(values: list[float]) -> str:
    if not any(values):
        return MISSING
    low, high = round(min(values)), round(max(values))
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _marked(found: Paired | None, same: bool) -> str:
    if found is None or same:
        return MISSING
    return f"**{found}**" if found.shown else str(found)


def _of(direction: str) -> str:
    corpus, _, language = direction.rpartition("-")
    return f"The {corpus} corpus, en-{language}"


def _tries(lab: Laboratory, direction: str, name: str) -> dict[float, float]:
    """Learning rate to development score, of the finished tries."""
    found = {}
    for cell in lab.trainings(direction, lab.setting.seeds[0], name):
        result = lab.cells.known(cell) or {}
        if "dev_bleu" in result:
            found[float(result["rate"])] = float(result["dev_bleu"])
    return dict(sorted(found.items()))
