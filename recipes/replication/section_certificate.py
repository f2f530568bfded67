"""The certificate: how often a method predicts what embed tuning predicts, and what that does not say."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from pocket import MODEL_FOLDER

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.checkpoints.writer import atomic_file
from ks_lottery.evaluation.agreement import Agreement, ResponseArgmax, agreement, ks_threshold
from ks_lottery.report.canvas import BLUE, GREY, INK, ORANGE, new_figure, plain_axes, to_png
from ks_lottery.ticket.markdown import table
from ks_lottery.units.token_rows import input_embedding
from replication.laboratory import Laboratory
from replication.means import Means, shown
from replication.measure import PREDICTIONS
from replication.paired import tested_cell
from replication.plan import Plan

PICTURE = "certificate.png"
_LEVEL = 0.05


@dataclass(frozen=True)
class Certified:
    """Agreement with embed tuning of the same direction and seed, over all of them.

    Attributes:
        rate: mean share of tokens on which both predict the same.
        bound: the smallest lower bound over directions and seeds, Clopper-Pearson.
        by_sentences: the smallest bound by bootstrap over sentences.
        tests: how many directions and seeds.
    """

    rate: float
    bound: float
    by_sentences: float
    tests: int


def certificate_section(plan: Plan, folder: Path) -> str:
    """Table and picture of the agreement with embed tuning."""
    lab, setting = plan.lab, plan.setting
    alphas = sorted(setting.alphas)
    names = ["base", *(f"transfer-ks-{alpha:g}" for alpha in alphas), "transfer-ks",
             *(f"ks-{alpha:g}" for alpha in alphas), "ks", "frequency", "count-matched", "newline", "lora-8",
             "full"]  # fmt: skip
    found = {name: certified for name in names if (certified := certify(lab, name)) is not None}
    if "base" not in found:
        return "## The certificate\n\nNot run yet."
    means = Means(lab)
    rows = [
        [
            plan.methods[name].title,
            f"{one.rate:.1%}",
            f"{one.bound:.1%}",
            f"{one.by_sentences:.1%}",
            shown(means.mean(setting.full_directions, name, "bleu_whole")),
            f"{one.tests}",
        ]
        for name, one in found.items()
    ]
    header = ["run", "agreement", "certified, worst", "by sentences, worst", "BLEU whole", "tests"]
    parts = ["## The certificate", _sentences(plan, found), table(header, rows)]
    curve = {alpha: found[f"transfer-ks-{alpha:g}"] for alpha in alphas if f"transfer-ks-{alpha:g}" in found}
    if len(curve) > 1:
        _draw(curve, found["base"], row_length(lab), folder / PICTURE)
        parts.append(f"![Agreement and threshold against alpha](results/study/{PICTURE})")
    return "\n\n".join(parts)


def certify(lab: Laboratory, name: str) -> Certified | None:
    """Agreement of a method with embed tuning; None without a finished test."""
    found: list[Agreement] = []
    for direction in lab.setting.full_directions:
        for seed in lab.setting.seeds:
            cells = [tested_cell(lab, direction, seed, method) for method in (name, "embed")]
            places = [str(lab.cells.place(cell) / PREDICTIONS) for cell in cells if cell is not None]
            if len(places) == 2 and all(Path(place).is_file() for place in places):
                found.append(_agreement(*places))
    if not found:
        return None
    return Certified(
        float(np.mean([one.rate for one in found])),
        min(one.lower_bound for one in found),
        min(one.sentence_lower_bound or 0.0 for one in found),
        len(found),
    )


def row_length(lab: Laboratory) -> int:
    """Values of a token row of the base model."""
    layout = open_checkpoint(lab.setting.model or str(MODEL_FOLDER)).layout()
    return int(layout.shape(input_embedding(layout))[1])


@lru_cache(maxsize=1024)
def _agreement(one: str, other: str) -> Agreement:
    return agreement(ResponseArgmax.load(one), ResponseArgmax.load(other), alpha=_LEVEL)


def _sentences(plan: Plan, found: dict[str, Certified]) -> str:
    setting = plan.setting
    said = [
        f"How often a model's most likely next token is embed tuning's, on the first {setting.certificate_sentences} "
        "test sentences of each direction with the right text given before: that can be certified on held-out text, "
        "and it is all that is. The bounds hold with confidence 0.95 for one test; the worst over directions and "
        "replicates stands here.",
        f"**The untouched base model agrees on {found['base'].rate:.0%}** with embed tuning: many tokens are easy "
        "once the right text stands before them. What a certificate is worth begins above that.",
    ]
    ticket, rival = found.get("ks"), found.get("frequency")
    if ticket and rival:
        agreed = f"The KS rows agree on {ticket.rate:.1%}, the most frequent rows on {rival.rate:.1%}"
        if "lora-8" in found and "full" in found:
            agreed += f", LoRA r=8 on {found['lora-8'].rate:.1%}, full tuning on {found['full'].rate:.1%}"
        said.append(f"{agreed}. Agreement with embed tuning is no measure of translation: compare the BLEU beside it.")
    transfers = [name for name in found if name.startswith("transfer-ks-")]
    if len(transfers) > 1:
        rates = ", ".join(f"{found[name].rate:.1%} at {name.removeprefix('transfer-ks-')}" for name in transfers)
        width = row_length(plan.lab)
        taus = ", ".join(f"{ks_threshold(alpha, width):.3f} at {alpha:g}" for alpha in sorted(setting.alphas))
        said.append(
            f"With alpha more rows are copied and agreement rises ({rates}), by construction: at alpha 1 it would be "
            f"all. The threshold tau(alpha) = sqrt(ln(2 / alpha) / {width}) on D is {taus}; it cuts rows and bounds "
            "nothing of the predictions. Where no row passes, the certificate is the base model's."
        )
    return "\n\n".join(said)


def _draw(curve: dict[float, Certified], base: Certified, width: int, file: Path) -> None:
    figure = new_figure(8.0, 3.2)
    left, right = (plain_axes(axes) for axes in figure.subplots(1, 2))
    alphas = list(curve)
    left.plot(alphas, [one.rate for one in curve.values()], "o-", color=INK, label="agreement, mean")
    left.plot(alphas, [one.bound for one in curve.values()], "s--", color=BLUE, label="certified, worst")
    left.plot(alphas, [one.by_sentences for one in curve.values()], "^:", color=ORANGE, label="by sentences, worst")
    left.axhline(base.rate, color=GREY, linewidth=1.5, linestyle="-.", label="base model")
    left.set(xlabel="alpha", ylabel="agreement with embed tuning", title="Partial transfer")
    left.legend(fontsize=7.5, frameon=False)
    fine = np.linspace(0.01, 1.0, 100)
    right.plot(fine, [ks_threshold(alpha, width) for alpha in fine], color=INK)
    right.plot(alphas, [ks_threshold(alpha, width) for alpha in alphas], "o", color=INK)
    right.set(xlabel="alpha", ylabel="tau(alpha), on D", title=f"Threshold at row length {width}")
    with atomic_file(file) as unfinished:
        unfinished.write_bytes(to_png(figure))
