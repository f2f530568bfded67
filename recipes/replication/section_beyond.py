"""Selections beyond the paper, other sizes, and score against adapter bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ks_lottery.checkpoints.writer import atomic_file
from ks_lottery.report.comparison_plots import front
from ks_lottery.ticket.markdown import data_size, table
from replication.figures_main import Sized, bytes_picture
from replication.means import Means, shown, spread
from replication.page_short import capital, differences, verdict
from replication.parts import BEYOND, HEADS, SIZED
from replication.plan import Plan

PICTURE = "bytes.png"
_BESIDE = (
    "newline",
    "ks",
    "ks-0.95",
    "frequency",
    "move",
    "relative-move",
    "lora-1",
    "lora-8",
    "prefix",
    "embed",
    "full",
)


@dataclass(frozen=True)
class Priced:
    """A method with its score and its size.

    Attributes:
        name: of the method.
        size: bytes of the adapter file, mean over replicates.
        score: BLEU of whole texts, mean over replicates.
    """

    name: str
    size: float
    score: float


def beyond_section(plan: Plan, folder: Path) -> str:
    """What beats the paper's rows at their size, and the best adapter per kilobyte."""
    lab, direction, means = plan.lab, plan.setting.tuned_on, Means(plan.lab)
    names = (*_BESIDE, *SIZED, *BEYOND, *HEADS)
    priced = [one for name in dict.fromkeys(names) if (one := _priced(means, direction, name)) is not None]
    if not any(one.name in BEYOND for one in priced):
        return "## Beyond the paper\n\nNot run yet."
    winners = [priced[number] for number in front([(one.size, one.score) for one in priced])]
    rows = []
    for one in sorted(priced, key=lambda one: one.size):
        trained = means.cost(direction, one.name, "trainable")
        against = differences(lab, one.name, "ks", (direction,)).get(direction)
        rows.append([
            ("**{}**" if one in winners else "{}").format(plan.methods[one.name].title), f"{np.mean(trained):,.0f}",
            data_size(round(one.size)), spread(means.values(direction, one.name, "bleu_whole")),
            *(shown(means.mean(direction, one.name, key)) for key in ("bleu_first_line", "chrf_whole")),
            "" if against is None or one.name == "ks" else f"**{against}**" if against.shown else str(against),
        ])  # fmt: skip
    header = [
        "run",
        "weights",
        "adapter",
        "BLEU whole (replicates)",
        "BLEU first line",
        "chrF whole",
        "against KS rows",
    ]
    drawn = [Sized(plan.methods[one.name].title, one.size, tuple(means.values(direction, one.name, "bleu_whole")),
                   _family(one.name)) for one in priced]  # fmt: skip
    with atomic_file(folder / PICTURE) as unfinished:
        unfinished.write_bytes(bytes_picture(drawn, f"BLEU, whole text, en-{direction}"))
    return "\n\n".join(
        [
            "## Beyond the paper",
            _sentences(plan, priced, winners),
            table(header, rows),
            f"![Score against bytes of the adapter](results/study/{PICTURE})",
        ]
    )


def _sentences(plan: Plan, priced: Sequence[Priced], winners: Sequence[Priced]) -> str:
    direction, titles = plan.setting.tuned_on, {name: method.title for name, method in plan.methods.items()}
    sizes = {one.name: one.size for one in priced}
    said = [
        f"en-{direction}, all with the same steps, pairs and number of learning rates tried. In bold: on the front of "
        "score against bytes, so that no adapter of as many bytes or fewer scores as high."
    ]
    best = max((one for one in priced if one.name in BEYOND and "lora" not in one.name), key=lambda one: one.score)
    for rival in ("ks", "lora-1", "lora-8", "embed"):
        if rival in sizes and (found := differences(plan.lab, best.name, rival, (direction,))):
            ratio = sizes[rival] / best.size
            said.append(
                f"{capital(verdict(titles[best.name], titles[rival], found))}; {titles[rival]} takes {ratio:,.1f} "
                "times its bytes."
            )
    said += _fewer_weights(plan, priced)
    steps = ", ".join(f"{titles[one.name]} ({data_size(round(one.size))}: {one.score:.1f})" for one in winners)
    said.append(f"The front: {steps}.")
    return " ".join(said)


def _fewer_weights(plan: Plan, priced: Sequence[Priced]) -> list[str]:
    """Selections with fewer weights than the KS rows that are not shown to score lower."""
    direction, means, found = plan.setting.tuned_on, Means(plan.lab), []
    limit = means.cost(direction, "ks", "trainable")
    for one in priced:
        trained = means.cost(direction, one.name, "trainable")
        against = differences(plan.lab, one.name, "ks", (direction,)).get(direction)
        if against is None or not limit or np.mean(trained) >= np.mean(limit) or (against.shown and against.mean < 0):
            continue
        title = plan.methods[one.name].title
        found.append(f"{title} ({np.mean(trained):,.0f}: {against}{', shown' if against.shown else ''})")
    if not found:
        return ["No selection with fewer weights than the KS rows scores as high."]
    return [
        f"With fewer weights than the {np.mean(limit):,.0f} of the KS rows and no lower score shown: "
        f"{', '.join(found)}."
    ]


def _priced(means: Means, direction: str, name: str) -> Priced | None:
    scores, sizes = means.values(direction, name, "bleu_whole"), means.cost(direction, name, "adapter_bytes")
    if not scores or not sizes or not any(sizes):
        return None
    return Priced(name, float(np.mean(sizes)), float(np.mean(scores)))


def _family(name: str) -> str:
    if name.startswith("lora"):
        return "LoRA"
    if "norms" in name:
        return "rows and norms"
    if name in HEADS:
        return "heads and layers"
    return "others" if name in ("prefix", "embed", "full") else "token rows"
