"""Score against the size of what was saved."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ks_lottery.report.canvas import BLUE, GREY, RULE
from ks_lottery.report.comparison_plots import front
from ks_lottery.report.plots import name_points, new_axes
from ks_lottery.report.results import Result
from ks_lottery.ticket.markdown import data_size

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PALE_BLUE = "#a9cdec"
_KEPT_CLEAR = 24  # places along each piece of a line


def saved(results: Sequence[Result]) -> list[Result]:
    """Results of which both the size of what was saved and the score are known, by size."""
    known = [one for one in results if one.adapter_bytes and one.bleu_whole is not None]
    return sorted(known, key=lambda one: (one.adapter_bytes, one.name))


def bytes_drawing(results: Sequence[Result]) -> "Figure":
    """BLEU of the whole continuation against the bytes of what was saved, with the best of each size joined by a line.

    Args:
        results: at least one with a size and a score; those without are left out.

    Returns:
        the drawing; the mark of the n-th of `saved(results)` is `saved-n`.
    """
    known = saved(results)
    points = [(float(one.adapter_bytes or 0), float(one.bleu_whole or 0)) for one in known]
    figure, axes = new_axes(8.0, 4.6)
    clear: list[tuple[float, float]] = []
    for number, (one, (size, score)) in enumerate(zip(known, points, strict=True)):
        if one.bleu_whole_interval is not None:
            axes.plot([size, size], one.bleu_whole_interval, color=GREY, linewidth=1.4, zorder=2)
            clear += [(size, float(height)) for height in np.linspace(*one.bleu_whole_interval, _KEPT_CLEAR)]
        axes.scatter(size, score, s=36, color=BLUE, edgecolors="white", linewidths=0.6, zorder=3, gid=f"saved-{number}")
    best = [points[number] for number in front(points)]
    axes.plot(*zip(*best, strict=True), color=_PALE_BLUE, linewidth=1.6, drawstyle="steps-post", zorder=1)
    for (left, height), (right, _) in pairwise(best):
        clear += [(float(size), height) for size in np.geomspace(left, right, _KEPT_CLEAR)]
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda size, _: data_size(size))
    axes.margins(x=0.12, y=0.12)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_xlabel("bytes of what was saved; the line joins what nothing smaller beats")
    axes.set_ylabel("BLEU, whole continuation")
    name_points(axes, points + clear, [one.name for one in known])
    return figure
