"""The pictures of a comparison: score against density and cost, and overlap of tickets."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ks_lottery.report.canvas import GREY, INK, new_figure, plain_axes, to_png
from ks_lottery.report.comparison_cells import Row, Table
from ks_lottery.report.plots import Box, free_place

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195")
_MARKS = "osD^vP"
_CONTROL_MARKS = {"shuffled": "x", "inverted": "1", "random": "*", "frequency": "+"}
_DASHES = ((0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
_SERIES = ("solid", (0, (5, 2)), (0, (1, 1)))
_PER_LINE = 2


class Drawn(NamedTuple):
    """A drawing, and what its marks are.

    Attributes:
        figure: the drawing.
        notes: by the gid of a line, a text for each of its marks.
    """

    figure: "Figure"
    notes: dict[str, list[str]]


def density_drawing(table: Table) -> Drawn:
    """Score against the realised density, one panel for each task.

    Tickets that no other beats in score at their density or a lower one form the front; controls are grey, references
    dashed lines.
    """
    return _panels(table, _density, "share of the weights of all units, %", joined=True)


def cost_drawing(table: Table) -> Drawn:
    """Score against examples forward and backward, of finding and training together; as `density_drawing`.

    References are black points.
    """
    return _panels(table, lambda row: row.examples or None, "examples, forward and backward", joined=False)


def overlap_picture(overlaps: Sequence[Mapping[str, Any]]) -> bytes:
    """Jaccard index of the tickets of all finders of one kind and granularity, one panel for each density.

    Args:
        overlaps: dicts with `density`, `first`, `second`, `first_replicate`, `second_replicate`, `jaccard` and
            `chance`; averaged over tasks and replicates.

    Returns:
        a PNG file. On the diagonal: other replicates of the same finder; what was not measured stays empty.
    """
    densities = sorted({entry["density"] for entry in overlaps}, reverse=True)
    methods = list(dict.fromkeys(entry[side] for entry in overlaps for side in ("first", "second")))
    columns = min(_PER_LINE, len(densities))
    lines = math.ceil(len(densities) / columns)
    side = 1.3 + 0.5 * len(methods) + 0.05 * max(map(len, methods))
    figure = new_figure(0.8 + columns * (side + 0.4), 0.4 + lines * (side + 0.3))
    for number, density in enumerate(densities, 1):
        here = [entry for entry in overlaps if entry["density"] == density]
        axes = figure.add_subplot(lines, columns, number)
        _heat_map(axes, overlap_matrix(here, methods), methods)
        chance = float(np.mean([entry["chance"] for entry in here]))
        axes.set_title(f"density {100 * density:.3g} %; chance {chance:.3f}", fontsize=9.5, color=INK)
    return to_png(figure)


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Points (x, score) that no other beats: none has at most their x and a larger score, or less x and their score.

    Returns:
        their numbers, by x ascending; of equal points the first.
    """
    best, chosen = -math.inf, []
    for number in sorted(range(len(points)), key=lambda one: (points[one][0], -points[one][1], one)):
        if points[number][1] > best:
            best = points[number][1]
            chosen.append(number)
    return chosen


def _panels(table: Table, place: Callable[[Row], float | None], label: str, *, joined: bool) -> Drawn:
    tasks = table.tasks
    columns = min(_PER_LINE, len(tasks))
    lines = math.ceil(len(tasks) / columns)
    figure = new_figure(5.2 * columns + 2.2, 3.9 * lines)
    finders = sorted({row.method for row in table.rows if row.role == "finder"})
    styles = {
        name: (_COLOURS[n % len(_COLOURS)], _MARKS[n // len(_COLOURS) % len(_MARKS)]) for n, name in enumerate(finders)
    }
    panels = []
    notes: dict[str, list[str]] = {}
    for number, task in enumerate(tasks, 1):
        axes = plain_axes(figure.add_subplot(lines, columns, number))
        rows = [row for row in table.rows if row.task == task]
        panels.append((axes, _draw(axes, rows, place, styles, joined)))
        notes |= _noted(axes, f"panel-{number}", rows, place)
        axes.set_title(task, fontsize=10, color=INK, parse_math=False)
        axes.margins(x=0.1, y=0.12)
        _log_scale(axes)
        axes.set_xlabel(label, fontsize=9)
        axes.set_ylabel("score", fontsize=9)
    _legend(figure, [axes for axes, _ in panels])
    figure.draw_without_rendering()
    for axes, named in panels:
        _name(axes, named)
    return Drawn(figure, notes)


def _draw(
    axes: "Axes", rows: Sequence[Row], place: Callable[[Row], float | None], styles: Mapping[str, tuple[str, str]],
    joined: bool,
) -> dict[str, Any]:  # fmt: skip
    """Draw one panel; gives all points, and the names of those on the front."""
    references = [row for row in rows if row.role == "reference"]
    placed = [(row, x) for row in rows if row.role != "reference" and (x := place(row)) is not None]
    for number, row in enumerate(references if joined else ()):
        axes.axhline(
            row.score.value, color=INK, linewidth=1.1, linestyle=_DASHES[number % len(_DASHES)], label=row.method
        )
    if not joined:
        for number, row in enumerate(references):
            if (x := place(row)) is not None:
                axes.plot(x, row.score.value, "pdh"[number % 3], color=INK, markersize=7, label=row.method)
    for name, (colour, mark) in styles.items():
        series = sorted((x, row.score) for row, x in placed if row.role == "finder" and row.method == name)
        if series:
            xs, scores = [x for x, _ in series], [score for _, score in series]
            line = _SERIES[_MARKS.index(mark) % len(_SERIES)] if joined else "none"
            axes.plot(
                xs, [one.value for one in scores], marker=mark, color=colour, markersize=5, linewidth=1.1,
                linestyle=line, label=name,
            )  # fmt: skip
            for x, score in series if not math.isnan(series[0][1].low) else ():
                axes.plot((x, x), (score.low, score.high), color=colour, linewidth=0.8, alpha=0.6)
    for control in dict.fromkeys(row.control for row, _ in placed if row.role == "control"):
        chosen = [(x, row.score.value) for row, x in placed if row.role == "control" and row.control == control]
        axes.plot(
            *zip(*chosen, strict=True), linestyle="none", marker=_CONTROL_MARKS.get(control, "."), color=GREY,
            markersize=6, label=f"control: {control or 'other'}", zorder=1,
        )  # fmt: skip
    points = [(x, row.score.value) for row, x in placed]
    best = front(points)
    if best:
        xs, ys = [points[one][0] for one in best], [points[one][1] for one in best]
        corners = [xs[0], *(x for x in xs[1:] for _ in "xx")], [*(y for y in ys[:-1] for _ in "yy"), ys[-1]]
        axes.plot(*corners, color=INK, linewidth=0.8, alpha=0.5, zorder=0)
        axes.plot(
            xs, ys, linestyle="none", marker="o", markersize=11, markerfacecolor="none", markeredgecolor=INK,
            markeredgewidth=0.9, label="on the front",
        )  # fmt: skip
    return {"points": points, "front": {one: _title(placed[one][0]) for one in best}}


def _noted(axes: "Axes", panel: str, rows: Sequence[Row], place: Callable[[Row], float | None]) -> dict[str, list[str]]:
    """Give the lines of a panel gids, and say what their marks are."""
    at = {(x, row.score.value): row for row in rows if (x := place(row)) is not None}
    notes = {}
    for number, line in enumerate(axes.lines):
        marked = [at.get((x, y)) for x, y in np.asarray(line.get_xydata(), dtype=np.float64).tolist()]
        if line.get_marker() in ("None", None, "") or None in marked:
            continue
        line.set_gid(f"{panel}-{number}")
        notes[f"{panel}-{number}"] = [_note(row, place) for row in marked if row is not None]
    return notes


def _note(row: Row, place: Callable[[Row], float | None]) -> str:
    """A mark in words."""
    known = [] if math.isnan(row.score.low) else [f"[{row.score.low:.4g}, {row.score.high:.4g}]"]
    where = [] if row.density is None else [f"density {100 * row.density:.3g} %"]
    return "\n".join(
        [
            " ".join([row.method, *where]),
            " ".join([f"score {row.score.value:.4g}", *known, f"on {row.task}"]),
            f"{place(row):,.6g} on the horizontal axis; {len(row.records)} runs",
        ]
    )


def _title(row: Row) -> str:
    density = "" if row.density is None else f" {100 * row.density:.3g} %"
    return f"{row.method}{density}"


def _legend(figure: "Figure", panels: Sequence["Axes"]) -> None:
    """One legend for all panels, on the right."""
    entries: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        entries |= {label: handle for label, handle in zip(labels, handles, strict=True) if label not in entries}
    last = [name for name in entries if name.startswith("control: ") or name == "on the front"]
    names = [name for name in entries if name not in last] + last
    legend = figure.legend(
        [entries[name] for name in names], names, loc="outside right upper", frameon=False, fontsize=8.5
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _name(axes: "Axes", drawn: Mapping[str, Any]) -> None:
    """Write the names of the front beside its points, on no point and no other name, where there is room."""
    at = [tuple(axes.transData.transform(point)) for point in drawn["points"]]
    frame = axes.get_window_extent()
    taken: list[Box] = [(x - 9, y - 9, x + 9, y + 9) for x, y in at]
    taken += [(x - 3, y - 2, x + 3, y + 2) for line in axes.lines for x, y in _along(line)]
    for number, name in drawn["front"].items():
        room = (frame.x0, frame.y0, frame.x1, frame.y1 + 4)
        place = write_name(axes, name, drawn["points"][number], taken, room, size=7.5, slack=20)
        if place is not None and place.far:
            leader = np.linspace(at[number], place.centre, 20)
            taken += [(a - 2, b - 2, a + 2, b + 2) for a, b in leader.tolist()]


class Written(NamedTuple):
    """Where a name stands, in pixels.

    Attributes:
        centre: of the name.
        far: whether a line leads from it to its point.
    """

    centre: tuple[float, float]
    far: bool


def write_name(
    axes: "Axes", name: str, point: tuple[float, float], taken: list[Box], room: Box, *, size: float, slack: float
) -> Written | None:
    """Write a name beside its point, where it covers nothing; None where there is no such place.

    Args:
        axes: drawn once, so that places in pixels are final.
        name: plain text.
        point: what it names, in data coordinates.
        taken: boxes (left, bottom, right, top) in pixels to keep clear; the name's own is added.
        room: box that it may not leave.
        size: of the font, in points.
        slack: pixels beyond half its width from which on a line leads to the point.
    """
    figure = axes.figure
    x, y = axes.transData.transform(point)
    text = axes.annotate(name, point, xytext=(0, 0), textcoords="offset points", fontsize=size, color=INK,
                         parse_math=False)  # fmt: skip
    extent = text.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
    text.remove()
    place = free_place((x, y), (extent.width, extent.height), taken, room)
    if place is None:
        return None
    taken.append(place)
    left, bottom, right, top = place
    centre = ((left + right) / 2, (bottom + top) / 2)
    far = math.hypot(centre[0] - x, centre[1] - y) > extent.width / 2 + slack
    per_point = figure.dpi / 72
    axes.annotate(
        name, point, xytext=((left - x) / per_point, (centre[1] - y) / per_point), textcoords="offset points",
        va="center", fontsize=size, color=INK, parse_math=False,
        arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkB": 5} if far else None,
    ).set_in_layout(False)  # fmt: skip
    return Written(centre, far)


def _along(line: Any) -> list[tuple[float, float]]:
    """Points every few pixels along a line, in pixels; of markers without a line none."""
    corners = line.get_transform().transform(line.get_xydata())
    if line.get_linestyle() in ("None", ""):
        return []
    return [
        (x, y)
        for (x0, y0), (x1, y1) in pairwise(corners.tolist())
        for x, y in np.linspace((x0, y0), (x1, y1), 2 + int(math.hypot(x1 - x0, y1 - y0) / 5)).tolist()
    ]


def _log_scale(axes: "Axes") -> None:
    """A logarithmic x axis whose ticks are plain numbers, also where it spans less than a power of ten."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.6g}" if value < 1e6 else f"{value / 1e6:,.6g} M")


def _density(row: Row) -> float | None:
    realised = row.mean(lambda one: one.realised)
    share = row.density if realised is None else realised
    return None if not share else 100 * share


def overlap_matrix(overlaps: Sequence[Mapping[str, Any]], methods: Sequence[str]) -> np.ndarray:
    """[methods, methods] mean Jaccard index, symmetric; NaN where nothing was measured."""
    found: dict[frozenset[str], list[float]] = {}
    for entry in overlaps:
        if entry["first"] != entry["second"] or entry["first_replicate"] != entry["second_replicate"]:
            found.setdefault(frozenset((entry["first"], entry["second"])), []).append(float(entry["jaccard"]))
    values = np.full((len(methods), len(methods)), math.nan)
    for row, one in enumerate(methods):
        for column, other in enumerate(methods):
            if frozenset((one, other)) in found:
                values[row, column] = float(np.mean(found[frozenset((one, other))]))
    return values


def _heat_map(axes: "Axes", values: np.ndarray, names: Sequence[str]) -> None:
    axes.imshow(values, cmap="Blues", vmin=0.0, vmax=1.0)
    for (row, column), value in np.ndenumerate(values):
        shown = "" if math.isnan(value) else f"{value:.2f}"
        axes.text(column, row, shown, ha="center", va="center", fontsize=7.5, color="white" if value > 0.55 else INK)
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    for tick in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        tick.set_parse_math(False)
    axes.tick_params(length=0, labelsize=8)
    for side in axes.spines.values():
        side.set_visible(False)
