"""Which rows pass: D against frequency, norm and move, the tokens themselves, and what decides p < 0.05."""

from pathlib import Path

import numpy as np
from pocket import MODEL_FOLDER
from scipy.stats import spearmanr
from transformers import AutoTokenizer

from ks_lottery.checkpoints.writer import atomic_file
from ks_lottery.report.canvas import BLUE, GREY, INK, ORANGE, new_figure, plain_axes, to_png
from ks_lottery.ticket.markdown import MISSING, code, table
from ks_lottery.ticket.tokens import readable_token
from replication.counts import Counts, counts_cell
from replication.laboratory import Laboratory
from replication.means import spread
from replication.plan import Plan
from replication.shift import FILE, RowShift

PICTURE = "rows.png"
_TOKENS = 18


def row_section(plan: Plan, folder: Path) -> str:
    """Correlations, tokens, and a picture of D against frequency."""
    lab, setting = plan.lab, plan.setting
    found = {(direction, seed): pair for direction in setting.full_directions for seed in setting.seeds
             if (pair := _measured(lab, direction, seed)) is not None}  # fmt: skip
    if not found:
        return "## Which rows\n\nNot run yet."
    direction, seed = setting.tuned_on, setting.seeds[0]
    said = (
        "All rows that embed tuning changed, each direction and replicate. Spearman correlations of D with how often "
        "the token occurs in the training text, with the norm of the row before, with its move, and with its move over "
        "that norm; mean over directions and replicates, smallest and largest. *Of the prompt*: of the "
        f"{setting.rows} rows with the largest D, those whose token stands in every prompt."
    )
    parts = ["## Which rows", said, _correlations(found, setting.rows)]
    if (direction, seed) in found:
        shift, counts = found[direction, seed]
        _draw(shift, counts, setting.rows, f"en-{direction}, seed {seed}", folder / PICTURE)
        parts += [
            f"![D of every changed row against the count of its token](results/study/{PICTURE})",
            f"The rows of en-{direction}, seed {seed}, as the test ranks them (p is a code of the size of D, no error "
            "rate):",
            _tokens(shift, counts, setting.model or str(MODEL_FOLDER)),
        ]
    return "\n\n".join(parts)


def knob_section(plan: Plan, folder: Path) -> str:
    """How many rows pass the rule by learning rate and Adam's beta2."""
    del folder
    lab, rows = plan.lab, []
    direction, seed = plan.setting.tuned_on, plan.setting.seeds[0]
    for name, beta2 in (("embed", plan.setting.adam_beta2), ("embed-beta2-0.999", 0.999)):
        for cell in lab.trainings(direction, seed, name):
            if (result := lab.cells.known(cell)) is not None:
                shift = RowShift.load(lab.cells.place(cell))
                rows.append([f"{result['rate']:g}", f"{beta2:g}", f"{result['dev_bleu']:.1f}",
                             f"{int(shift.changed.sum()):,}",
                             *(f"{len(shift.passing(alpha)):,}" for alpha in plan.setting.alphas),
                             f"{shift.d.max():.3f}"])  # fmt: skip
    if not rows:
        return "## What decides p < 0.05\n\nNot run yet."
    said = (
        f"The same probe, en-{direction}, first replicate, at each learning rate that was tried and at two values of "
        "Adam's beta2. How many rows pass follows from them: the level is a threshold on the size of the move, and the "
        "move is what the optimizer makes of it."
    )
    header = ["rate", "beta2", "development BLEU", "rows changed",
              *(f"p < {alpha:g}" for alpha in plan.setting.alphas), "largest D"]  # fmt: skip
    return "\n\n".join(["## What decides p < 0.05", said, table(header, rows)])


def _measured(lab: Laboratory, direction: str, seed: int) -> tuple[RowShift, Counts] | None:
    counted = counts_cell(direction, seed)
    if any(lab.cells.known(name) is None for name in (counted, *lab.trainings(direction, seed, "embed"))):
        return None
    folder = lab.folder(direction, seed, "embed")
    assert (folder / FILE).is_file()
    return RowShift.load(folder), Counts.load(lab.cells.place(counted))


def _correlations(found: dict[tuple[str, int], tuple[RowShift, Counts]], rows: int) -> str:
    columns: dict[str, list[float]] = {name: [] for name in ("count", "norm", "move", "relative move", "of the prompt")}
    for shift, counts in found.values():
        kept = np.flatnonzero(shift.changed)
        for name, values in (("count", counts.training), ("norm", shift.norm), ("move", shift.shift),
                             ("relative move", shift.relative)):  # fmt: skip
            columns[name].append(float(spearmanr(shift.d[kept], values[kept]).statistic))
        columns["of the prompt"].append(float((counts.prompt[shift.largest("d", rows)] > 0).sum()))
    header = ["of D with", "Spearman, or number of rows"]
    lines = [[name, spread(values, 1 if name == "of the prompt" else 2)] for name, values in columns.items()]
    return table(header, lines)


def _tokens(shift: RowShift, counts: Counts, model: str) -> str:
    tokenizer = AutoTokenizer.from_pretrained(model)
    by_count = np.argsort(np.argsort(-counts.training, kind="stable"), kind="stable")
    rows = [
        [
            code(readable_token(tokenizer, int(row))),
            f"{shift.d[row]:.3f}",
            f"{shift.p[row]:.2g}",
            f"{shift.relative[row]:.2f}",
            f"{counts.training[row]:,}",
            f"{by_count[row] + 1:,}",
            f"{counts.prompt[row]}" if counts.prompt[row] else MISSING,
        ]
        for row in shift.largest("d", _TOKENS)
    ]
    return table(["token", "D", "p", "move / norm", "count", "rank by count", "in the prompt"], rows)


def _draw(shift: RowShift, counts: Counts, rows: int, title: str, file: Path) -> None:
    figure = new_figure(9.0, 4.4)
    axes = plain_axes(figure.subplots())
    ticket, kept = shift.largest("d", rows), np.flatnonzero(shift.changed)
    prompt = np.flatnonzero(counts.prompt)
    axes.scatter(counts.training[kept], shift.d[kept], s=7, color=GREY, label="changed rows")
    axes.scatter(counts.training[prompt], shift.d[prompt], s=52, marker="s", facecolors="none", edgecolors=BLUE,
                 label="rows of the prompt")  # fmt: skip
    axes.scatter(counts.training[ticket], shift.d[ticket], s=34, marker="x", color=INK, label=f"{rows} largest D")
    for alpha, style in ((0.05, "-"), (0.5, "--"), (0.95, ":")):
        passing = shift.passing(alpha)
        if len(passing):
            axes.axhline(shift.d[passing].min(), color=ORANGE, linestyle=style, linewidth=1, label=f"p < {alpha:g}")
    axes.set_xscale("log")
    axes.set(xlabel="count of the token in the training text", ylabel="D", title=title)
    axes.legend(fontsize=8, frameon=False)
    with atomic_file(file) as unfinished:
        unfinished.write_bytes(to_png(figure))
