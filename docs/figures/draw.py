"""Draws the pictures of how-it-works.md; `python docs/figures/draw.py` writes them beside this file."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ks_lottery.stats.kolmogorov import two_sample_statistic

HERE = Path(__file__).resolve().parent
INK, BLUE, ORANGE, GREY = "#333333", "#2b6cb0", "#d9540c", "#9aa5b1"


def main() -> None:
    """Write every picture."""
    matplotlib.rcParams.update({"svg.fonttype": "path", "svg.hashsalt": "ks_lottery", "font.size": 10})
    for name, figure in (("two-rows", two_rows()), ("paired", paired())):
        figure.savefig(HERE / f"{name}.svg", metadata={"Date": None, "Creator": None})


def row(seed: int) -> np.ndarray:
    """A row of 192 numbers, as an embedding has them."""
    values: np.ndarray = 0.02 * np.random.default_rng(seed).standard_normal(192)
    return values


def two_rows() -> Figure:
    """The empirical distributions of a row that shifted and of one that did not."""
    figure = Figure(figsize=(9, 3.4), layout="constrained", facecolor="white")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (title, after) in zip(
        panels, (("shifted", row(0) * 1.9 + 0.012), ("hardly shifted", row(0) + 0.002 * row(1) / 0.02)), strict=True
    ):
        before = row(0)
        height = statistic(before, after)
        for values, colour, label in ((before, BLUE, "before"), (after, ORANGE, "after")):
            axes.step(np.sort(values), np.arange(1, 193) / 192, color=colour, label=label, where="post")
        grid = np.sort(np.concatenate([before, after]))
        gaps = [abs(np.mean(before <= x) - np.mean(after <= x)) for x in grid]
        widest = grid[int(np.argmax(gaps))]
        axes.plot([widest] * 2, [np.mean(before <= widest), np.mean(after <= widest)], color=INK, linewidth=2)
        axes.set_title(f"{title}: D = {height:.3f}", color=INK)
        axes.set_xlabel("value of a weight")
        axes.legend(frameon=False, loc="lower right")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    panels[0].set_ylabel("share of the row's 192 weights below")
    return figure


def paired() -> Figure:
    """Three moves of a row beside what D makes of them."""
    before = row(0)
    moves = {
        "every weight moves by\n10 % noise": before * (1 + 0.1 * np.random.default_rng(3).standard_normal(192)),
        "weights exchange\ntheir places": np.random.default_rng(4).permutation(before),
        "all weights move\nby 0.02 to one side": before + 0.02,
    }
    figure = Figure(figsize=(9, 3.2), layout="constrained", facecolor="white")
    for axes, (title, after) in zip(figure.subplots(1, 3, sharey=True), moves.items(), strict=True):
        axes.scatter(before, after, s=8, color=GREY, linewidths=0)
        axes.axline((0, 0), slope=1, color=INK, linewidth=0.8)
        moved = float(np.linalg.norm(after - before) / np.linalg.norm(before))
        axes.set_title(
            f"{title}\nD = {statistic(before, after):.3f}, shift / norm = {moved:.2f}", fontsize=9.5, color=INK
        )
        axes.set_xlabel("before")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.axes[0].set_ylabel("after")
    return figure


def statistic(before: np.ndarray, after: np.ndarray) -> float:
    """D, by this library's own test."""
    from torch import from_numpy

    return int(two_sample_statistic(from_numpy(before[None]), from_numpy(after[None]))[0]) / len(before)


if __name__ == "__main__":
    main()
