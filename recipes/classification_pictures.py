"""The pictures of a classification report, and the figures of its HTML page."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ks_lottery.report.canvas import new_figure, to_png
from ks_lottery.report.html.figure import Figure, Stack
from ks_lottery.report.html.heat_map import Cell, HeatMap
from ks_lottery.report.html.picture import Notes, Picture
from ks_lottery.ticket.markdown import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

_BLUE, _PALE_BLUE, _ORANGE, _INK = "#2b6cb0", "#a9cdec", "#d9540c", "#333333"
_METRICS = {"accuracy": "accuracy", "macro_f1": "macro F1"}
_PANELS = (("ks_score", "−log p of the KS test"), ("shift", "Euclidean norm of the move"))


def score_figure(rows: Sequence[Mapping[str, Any]]) -> Picture:
    """The drawing of `_score_drawing` with a note at each bar."""
    notes: dict[str, Notes] = {
        f"{metric}-{place}": f"{row['name']}\n{label} {number(100 * row[metric])} "
        f"[{', '.join(number(100 * end) for end in row[f'{metric}_interval'])}]"
        for metric, label in _METRICS.items()
        for place, row in enumerate(rows)
    }
    return Picture(
        _score_drawing(rows), "Scores with bootstrap intervals over test texts",
        "Two bars for each run: accuracy and macro F1. The table above has the numbers.", notes,
    )  # fmt: skip


def head_figure(heads: Sequence[Mapping[str, Any]], tickets: tuple[str, str]) -> Figure:
    """Two heat maps of all attention heads, one row per layer, with all that is known of each head.

    Args:
        heads: as `results.json` holds them.
        tickets: names of the KS and of the magnitude ticket.
    """
    groups, width = _layers(heads)
    columns = [str(place) for place in range(width)]
    maps = []
    for (column, label), ticket in zip(_PANELS, tickets, strict=True):
        shown = _values(heads, column)
        found = {(head["group"], head["id"]): head for head in heads}
        rows = [
            (group, [_head_cell(found.get((group, place)), float(shown[r, place]), ticket) for place in range(width)])
            for r, group in enumerate(groups)
        ]
        what = f"rank of {label}" if column == "ks_score" else label
        maps.append(HeatMap(f"{ticket}: {what}", rows, "layer", columns, ("least", "most"), f"in {ticket}"))
    return Stack(maps)


def _head_cell(head: Mapping[str, Any] | None, value: float, ticket: str) -> Cell:
    if head is None or math.isnan(value):
        return Cell(None, "", "")
    note = (
        f"{head['group']}, head {head['id']}\nD {number(head['statistic'], 4)}, −log10 p {0.0 - head['log10_p']:.2g}\n"
        f"shift {number(head['shift'], 3)}, shift / norm {number(head['relative_shift'], 4)}\n"
        f"in: {', '.join(head['in']) or 'no ticket'}"
    )
    return Cell(value, number(value, 0 if value == int(value) else 2), note, ticket in head["in"])


def _score_drawing(rows: Sequence[Mapping[str, Any]]) -> "Drawing":
    """Accuracy and macro F1 of each row in percent, with their bootstrap intervals.

    Args:
        rows: as `results.json` holds them, from top to bottom.

    Returns:
        the drawing; the bar of a row is `METRIC-NUMBER`.
    """
    figure = new_figure(8.0, 1.5 + 0.52 * len(rows))
    axes = figure.add_subplot()
    places = np.arange(len(rows))[::-1]
    for offset, metric, colour, label in (
        (0.19, "accuracy", _BLUE, "accuracy"), (-0.19, "macro_f1", _PALE_BLUE, "macro F1"),
    ):  # fmt: skip
        scores = np.array([100 * row[metric] for row in rows])
        intervals = 100 * np.array([row[f"{metric}_interval"] for row in rows])
        bars = axes.barh(places + offset, scores, height=0.36, color=colour, label=label)
        for place, bar in enumerate(bars):
            bar.set_gid(f"{metric}-{place}")
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
    return figure


def head_picture(heads: Sequence[Mapping[str, Any]], tickets: tuple[str, str]) -> bytes:
    """Two heat maps of all attention heads, one row per layer: the score of each finder, its ticket's heads framed.

    Args:
        heads: as `results.json` holds them.
        tickets: names of the KS and of the magnitude ticket.

    Returns:
        a PNG file. The KS scores are drawn by rank: p-values span too many orders of magnitude for colours.
    """
    groups, width = _layers(heads)
    figure = new_figure(3.4 + 0.66 * width, 1.6 + 0.33 * len(groups))
    for panel, ((column, label), ticket) in enumerate(zip(_PANELS, tickets, strict=True), 1):
        axes = figure.add_subplot(1, 2, panel)
        shown = _values(heads, column)
        image = axes.imshow(shown, cmap="Blues", aspect="auto", origin="lower")
        chosen = [(groups.index(head["group"]), head["id"]) for head in heads if ticket in head["in"]]
        _frame(axes, chosen)
        axes.set_title(f"{ticket}: {len(chosen)} framed", fontsize=10, color=_INK)
        axes.set_xlabel("head")
        axes.set_xticks(range(width))
        axes.set_yticks(range(len(groups)), groups if panel == 1 else [""] * len(groups))
        axes.tick_params(length=0, labelsize=8)
        bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
        bar.set_label(f"rank of {label}" if column == "ks_score" else label, fontsize=8.5)
        bar.ax.tick_params(labelsize=8)
    return to_png(figure)


def _layers(heads: Sequence[Mapping[str, Any]]) -> tuple[list[str], int]:
    """Names of the layers in their order, and heads of the widest one."""
    return list(dict.fromkeys(head["group"] for head in heads)), 1 + max(head["id"] for head in heads)


def _values(heads: Sequence[Mapping[str, Any]], column: str) -> np.ndarray:
    """[layers, heads] what decides the colour; NaN where a layer has no such head. KS scores count by rank."""
    groups, width = _layers(heads)
    values = np.full((len(groups), width), math.nan)
    for head in heads:
        values[groups.index(head["group"]), head["id"]] = head[column]
    return _ranks(values) if column == "ks_score" else values


def _ranks(values: np.ndarray) -> np.ndarray:
    """Mean rank of each value, 1 for the smallest; equal values share a rank, NaN stays."""
    from scipy.stats import rankdata

    ranks: np.ndarray = rankdata(values, nan_policy="omit", axis=None).reshape(values.shape)
    return ranks


def _frame(axes: "Axes", places: Sequence[tuple[int, int]]) -> None:
    from matplotlib.patches import Rectangle

    for row, column in places:
        axes.add_patch(Rectangle((column - 0.44, row - 0.44), 0.88, 0.88, fill=False, edgecolor=_ORANGE, linewidth=2))
