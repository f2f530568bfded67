"""The pictures of a classification report, as PNG files in memory."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ks_lottery.report.canvas import new_figure, to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _PALE_BLUE, _ORANGE, _INK = "#2b6cb0", "#a9cdec", "#d9540c", "#333333"
_PANELS = (("ks_score", "−log p of the KS test"), ("shift", "Euclidean norm of the move"))


def score_picture(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Accuracy and macro F1 of each row in percent, with their bootstrap intervals.

    Args:
        rows: as `results.json` holds them, from top to bottom.

    Returns:
        a PNG file.
    """
    figure = new_figure(8.0, 1.5 + 0.52 * len(rows))
    axes = figure.add_subplot()
    places = np.arange(len(rows))[::-1]
    for offset, metric, colour, label in (
        (0.19, "accuracy", _BLUE, "accuracy"), (-0.19, "macro_f1", _PALE_BLUE, "macro F1"),
    ):  # fmt: skip
        scores = np.array([100 * row[metric] for row in rows])
        intervals = 100 * np.array([row[f"{metric}_interval"] for row in rows])
        axes.barh(places + offset, scores, height=0.36, color=colour, label=label)
        for place, score, (low, high) in zip(places + offset, scores, intervals, strict=True):
            axes.plot((low, high), (place, place), color=_INK, linewidth=1.4, solid_capstyle="butt")
            axes.annotate(
                f"{score:.1f}", (max(score, high), place), xytext=(4, 0), textcoords="offset points", va="center",
                fontsize=8.5, color=_INK,
            )  # fmt: skip
    axes.set_yticks(places, [row["name"] for row in rows])
    axes.set_xlabel("percent; lines are bootstrap intervals over test texts")
    axes.margins(x=0.08)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e3e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=9)
    return to_png(figure)


def head_picture(heads: Sequence[Mapping[str, Any]], tickets: tuple[str, str]) -> bytes:
    """Two heat maps of all attention heads, one row per layer: the score of each finder, its ticket's heads framed.

    Args:
        heads: as `results.json` holds them.
        tickets: names of the KS and of the magnitude ticket.

    Returns:
        a PNG file. The KS scores are drawn by rank: p-values span too many orders of magnitude for colours.
    """
    groups = list(dict.fromkeys(head["group"] for head in heads))
    width = 1 + max(head["id"] for head in heads)
    figure = new_figure(3.4 + 0.66 * width, 1.6 + 0.33 * len(groups))
    for number, ((column, label), ticket) in enumerate(zip(_PANELS, tickets, strict=True), 1):
        axes = figure.add_subplot(1, 2, number)
        values = np.full((len(groups), width), math.nan)
        for head in heads:
            values[groups.index(head["group"]), head["id"]] = head[column]
        shown = _ranks(values) if column == "ks_score" else values
        image = axes.imshow(shown, cmap="Blues", aspect="auto", origin="lower")
        chosen = [(groups.index(head["group"]), head["id"]) for head in heads if ticket in head["in"]]
        _frame(axes, chosen)
        axes.set_title(f"{ticket}: {len(chosen)} framed", fontsize=10, color=_INK)
        axes.set_xlabel("head")
        axes.set_xticks(range(width))
        axes.set_yticks(range(len(groups)), groups if number == 1 else [""] * len(groups))
        axes.tick_params(length=0, labelsize=8)
        bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
        bar.set_label(f"rank of {label}" if column == "ks_score" else label, fontsize=8.5)
        bar.ax.tick_params(labelsize=8)
    return to_png(figure)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Mean rank of each value, 1 for the smallest; equal values share a rank, NaN stays."""
    from scipy.stats import rankdata

    ranks: np.ndarray = rankdata(values, nan_policy="omit", axis=None).reshape(values.shape)
    return ranks


def _frame(axes: "Axes", places: Sequence[tuple[int, int]]) -> None:
    from matplotlib.patches import Rectangle

    for row, column in places:
        axes.add_patch(Rectangle((column - 0.44, row - 0.44), 0.88, 0.88, fill=False, edgecolor=_ORANGE, linewidth=2))
