"""Pictures of the main table: score of every method and direction, and score against the bytes of the adapter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ks_lottery.errors import DataError
from ks_lottery.report.canvas import BLUE, GREY, INK, ORANGE, new_figure, plain_axes, to_png
from ks_lottery.report.comparison_plots import front, write_name
from ks_lottery.report.plots import Box
from ks_lottery.stats.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FAMILIES = {
    "token rows": ("o", INK),
    "rows and norms": ("s", BLUE),
    "LoRA": ("^", ORANGE),
    "heads and layers": ("D", INK),
    "others": ("x", GREY),
}
"""Family of methods to its mark and colour; the marks alone tell them apart."""

_WHOLE = "whole text, 95 % interval"


@dataclass(frozen=True)
class Scored:
    """A method of one direction.

    Attributes:
        title: of the method.
        whole: BLEU of whole texts, mean over seeds, with the interval over test sentences.
        first_line: BLEU of first lines, mean over seeds.
        by_seed: BLEU of whole texts of each seed.
    """

    title: str
    whole: Interval
    first_line: float
    by_seed: tuple[float, ...]


@dataclass(frozen=True)
class Sized:
    """A method with the size of its adapter.

    Attributes:
        title: of the method.
        size: bytes of the adapter file, mean over seeds.
        by_seed: score of each seed.
        family: one of `FAMILIES`.
    """

    title: str
    size: float
    by_seed: tuple[float, ...]
    family: str

    @property
    def score(self) -> float:
        """Mean over seeds."""
        return sum(self.by_seed) / len(self.by_seed)


def score_picture(panels: Mapping[str, Sequence[Scored]], rival: str) -> bytes:
    """BLEU of every method, one panel for each direction, the methods in the order of the first panel that has them.

    Args:
        panels: heading of a panel to its methods.
        rival: title of the method whose score runs down each panel as a line.

    Returns:
        a PNG file: a point for whole texts with its interval, short strokes for the seeds, a diamond for first lines.

    Raises:
        DataError: if there is no method to draw.
    """
    titles = list(dict.fromkeys(one.title for methods in panels.values() for one in methods))
    if not titles:
        raise DataError("There is no finished test to draw. Run the study first.")
    place = {title: number for number, title in enumerate(titles)}
    figure = new_figure(3.0 + 2.8 * len(panels), 0.9 + 0.26 * len(titles))
    every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (heading, methods) in zip(every, panels.items(), strict=True):
        plain_axes(axes).set_title(heading, fontsize=10, color=INK)
        for one in methods:
            _stroke(axes, one, place[one.title])
            if one.title == rival:
                axes.axvline(one.whole.value, color=GREY, linewidth=1, linestyle="--", zorder=1, label=rival)
        axes.set_xlim(left=0)
        axes.set_xlabel("BLEU", fontsize=9)
    every[0].set_yticks(range(len(titles)), titles, parse_math=False)
    every[0].set_ylim(len(titles) - 0.4, -0.6)
    entries = {
        label: handle
        for axes in every
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }  # fmt: skip
    order = sorted(entries, key=lambda label: (label == rival, label != _WHOLE))
    figure.legend([entries[label] for label in order], order, loc="outside lower center", ncols=4, frameon=False,
                  fontsize=8.5)  # fmt: skip
    return to_png(figure)


def bytes_picture(methods: Sequence[Sized], label: str) -> bytes:
    """Score against the bytes of the adapter, on a logarithmic axis; the front is named and joined.

    Args:
        methods: sizes above 0.
        label: of the score axis.

    Returns:
        a PNG file: a mark for the mean over seeds, a thin line from the smallest to the largest seed.

    Raises:
        DataError: if there is no method, or one has no bytes.
    """
    if not methods:
        raise DataError("There is no adapter to draw. Run the study first.")
    for one in methods:
        if one.size <= 0:
            raise DataError(f"{one.title!r} has {one.size:g} bytes, which no logarithmic axis shows. Leave it out.")
    figure = new_figure(9.0, 5.6)
    axes = plain_axes(figure.subplots())
    axes.set_xscale("log")
    axes.margins(x=0.08, y=0.1)
    for family, (marker, colour) in FAMILIES.items():
        members = [one for one in methods if one.family == family]
        if members:
            axes.plot([one.size for one in members], [one.score for one in members], linestyle="none", marker=marker,
                      markersize=6, markerfacecolor="none", markeredgecolor=colour, label=family)  # fmt: skip
        for one in members:
            axes.plot((one.size, one.size), (min(one.by_seed), max(one.by_seed)), color=colour, linewidth=0.8)
    points = [(one.size, one.score) for one in methods]
    best = front(points)
    axes.step([points[one][0] for one in best], [points[one][1] for one in best], where="post", color=INK,
              linewidth=0.9, linestyle="--", label="front", zorder=1)  # fmt: skip
    axes.set_xlabel("bytes of the adapter", fontsize=9)
    axes.set_ylabel(label, fontsize=9)
    axes.legend(fontsize=8.5, frameon=False, loc="lower right")
    figure.draw_without_rendering()
    along = axes.transData.transform(_corners([points[one] for one in best]))
    steps = [np.linspace(*ends, 40) for ends in pairwise(along)]
    _name(axes, points, {one: methods[one].title for one in best}, [dot for step in steps for dot in step.tolist()])
    return to_png(figure)


def _stroke(axes: "Axes", one: Scored, row: int) -> None:
    """One method of one panel."""
    whole = one.whole
    axes.errorbar(whole.value, row, xerr=[[whole.value - whole.low], [whole.high - whole.value]], fmt="o", color=INK,
                  markersize=4.5, linewidth=1.3, capsize=0, label=_WHOLE, zorder=3)  # fmt: skip
    axes.plot(one.by_seed, [row + 0.26] * len(one.by_seed), linestyle="none", marker="|", color=BLUE, markersize=5,
              label="replicates, whole text")  # fmt: skip
    axes.plot(one.first_line, row, linestyle="none", marker="D", markerfacecolor="none", markeredgecolor=ORANGE,
              markersize=7.5, label="first line", zorder=2)  # fmt: skip


def _corners(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The corners of the stairs through points, which rise at each point."""
    stairs = list(points[:1])
    for (_, before), (x, score) in pairwise(points):
        stairs += [(x, before), (x, score)]
    return stairs


def _name(
    axes: "Axes", points: Sequence[tuple[float, float]], names: Mapping[int, str], line: Sequence[Sequence[float]]
) -> None:
    """Write names beside some of the points, on no point, name or pixel of a line; without a free place none."""
    frame, legend = axes.get_window_extent(), axes.get_legend()
    at = [tuple(axes.transData.transform(point)) for point in points]
    taken: list[Box] = [(x - 8, y - 8, x + 8, y + 8) for x, y in at]
    taken += [(x - 5, y - 5, x + 5, y + 5) for x, y in line]
    if legend is not None:
        corner = legend.get_window_extent()
        taken.append((corner.x0, corner.y0, corner.x1, corner.y1))
    for number, name in names.items():
        write_name(axes, name, points[number], taken, (frame.x0, frame.y0, frame.x1, frame.y1), size=8, slack=16)
