"""The pictures of a report: statistic against frequency, and scores with intervals."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ks_lottery.report.results import Result
from ks_lottery.report.token_shift import TokenShift

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GREY, _ORANGE, _BLUE, _PALE_BLUE, _INK = "#9aa5b1", "#d9540c", "#2b6cb0", "#a9cdec", "#333333"
_NAMED_ROWS = 30
_KEPT_CLEAR = 500
_DRAWN_ONE_BY_ONE = 4000

TICKET_ROWS, OTHER_ROWS = "ticket-rows", "other-rows"  # gids of the two clouds of points

Box = tuple[float, float, float, float]


def rows_shown(token_shift: TokenShift, rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the ticket's rows, and of up to 4,000 others that moved, in the order in which they are drawn.

    Args:
        token_shift: every row.
        rows: the ticket's rows as `ticket_summary` lists them.

    Returns:
        two arrays of int64; of the others those with the largest statistic.
    """
    chosen = np.asarray([row["id"] for row in rows if row["group"] == token_shift.group], dtype=np.int64)
    others = _others(token_shift, chosen)
    return chosen, others[:_DRAWN_ONE_BY_ONE]


def token_shift_drawing(token_shift: TokenShift, rows: Sequence[Mapping[str, Any]] = (), label: str = "D") -> "Figure":
    """Statistic of every row that moved against how often its token occurs, the ticket's rows in colour and named.

    Args:
        token_shift: every row.
        rows: the ticket's rows as `ticket_summary` lists them; the 30 with the largest statistic are named where
            there is room.
        label: what the statistic is called.

    Returns:
        the drawing; its clouds are `TICKET_ROWS` and `OTHER_ROWS`, in the order of `rows_shown`. Others beyond those
        are one picture of dots. A token that the font cannot draw is named by its id.
    """
    chosen, shown = rows_shown(token_shift, rows)
    others = _others(token_shift, chosen)
    names = {row["id"]: row["token"] for row in rows if row["group"] == token_shift.group}
    figure, axes = new_axes(8.0, 5.2)
    faint: dict[str, Any] = {"s": 9, "color": _GREY, "alpha": 0.45, "linewidths": 0}
    hidden = others[len(shown) :]
    if len(hidden):
        axes.scatter(token_shift.count[hidden], token_shift.statistic[hidden], rasterized=True, **faint)
    axes.scatter(
        token_shift.count[shown], token_shift.statistic[shown], gid=OTHER_ROWS,
        label=f"not selected ({len(others):,} rows that moved)", **faint,
    )  # fmt: skip
    axes.scatter(
        token_shift.count[chosen], token_shift.statistic[chosen], s=26, color=_ORANGE, edgecolors="white",
        linewidths=0.6, zorder=3, label=f"the ticket ({len(chosen):,} rows)", gid=TICKET_ROWS,
    )  # fmt: skip
    axes.set_xscale("symlog", linthresh=1, linscale=0.4)
    axes.xaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
    axes.set_xlim(left=-0.3, right=2.0 * max(10, int(token_shift.count.max())))
    axes.set_ylim(bottom=0, top=1.12 * max(float(token_shift.statistic.max()), 1e-12))
    axes.set_xlabel("occurrences of the token in the training text")
    axes.set_ylabel(f"{label} of the row, before against after")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=9)
    largest = chosen[np.argsort(-token_shift.statistic[chosen], kind="stable")][:_KEPT_CLEAR].tolist()
    points = [(float(token_shift.count[i]), float(token_shift.statistic[i])) for i in largest]
    name_points(axes, points, [_drawable(names[i], i) for i in largest[:_NAMED_ROWS]])
    return figure


def _others(token_shift: TokenShift, chosen: np.ndarray) -> np.ndarray:
    """Rows that moved and are not in the ticket, by statistic descending, then by id."""
    moved = token_shift.statistic > 0
    moved[chosen] = False
    found = np.flatnonzero(moved)
    return found[np.argsort(-token_shift.statistic[found], kind="stable")]


def score_drawing(results: Sequence[Result]) -> "Figure":
    """BLEU of each result, whole continuation and first line, with bootstrap intervals where they are known.

    Args:
        results: in the order from top to bottom; a missing score leaves its place empty.

    Returns:
        the drawing; the bar of a result is `METRIC-NUMBER`.
    """
    figure, axes = new_axes(8.0, 1.5 + 0.52 * len(results))
    places = np.arange(len(results))[::-1]
    for offset, metric, colour, label in (
        (0.19, "bleu_whole", _BLUE, "whole continuation"),
        (-0.19, "bleu_first_line", _PALE_BLUE, "first line only"),
    ):
        for count, (place, result) in enumerate(zip(places + offset, results, strict=True)):
            score, interval = getattr(result, metric), getattr(result, f"{metric}_interval")
            if score is None:
                continue
            axes.barh(place, score, height=0.36, color=colour, label=label, gid=f"{metric}-{count}")
            label = "_nolegend_"
            if interval is not None:
                axes.plot(interval, [place, place], color=_INK, linewidth=1.4, solid_capstyle="butt")
            end = max(score, *(interval or (score,)))
            axes.annotate(
                f"{score:.1f}", (end, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5,
                color=_INK,
            )  # fmt: skip
    axes.set_yticks(places, [result.name for result in results])
    for tick in axes.get_yticklabels():
        tick.set_parse_math(False)
    axes.set_ylim(-0.6, len(results) - 0.4)
    axes.margins(x=0.08)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e3e7eb", linewidth=0.8)
    axes.set_xlabel("BLEU; lines are bootstrap intervals over sentences")
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="upper center", ncols=2, frameon=False, fontsize=9)
    return figure


def new_axes(width: float, height: float) -> "tuple[Figure, Axes]":
    """A figure of a given size in inches, with one pair of axes; unknown to pyplot and its global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    margin = 0.55 / height
    axes = figure.add_axes((0.1, margin, 0.88, 1 - 1.65 * margin))
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def name_points(axes: "Axes", points: Sequence[tuple[float, float]], names: Sequence[str]) -> None:
    """Write the names beside the first points, on no point and no other name; one without a free place is left out.

    Args:
        axes: with their final limits.
        points: (x, y) in units of the data; those beyond the names are only kept clear.
        names: of the first points.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = axes.figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    pixels_per_point = axes.figure.dpi / 72
    frame = axes.get_window_extent()
    at = [axes.transData.transform(point) for point in points]
    taken: list[Box] = [(x - 6, y - 6, x + 6, y + 6) for x, y in at]
    for (x, y), point, name in zip(at, points, names, strict=False):
        text = axes.annotate(
            name, point, xytext=(0, 0), textcoords="offset points", fontsize=8.5, color=_INK, parse_math=False
        )
        extent = text.get_window_extent(canvas.get_renderer())
        text.remove()
        place = free_place((x, y), (extent.width, extent.height), taken, (frame.x0, frame.y0, frame.x1 + 60, frame.y1))
        if place is None:
            continue
        left, bottom, right, top = place
        taken.append(place)
        away = np.hypot((left + right) / 2 - x, (bottom + top) / 2 - y) > extent.width / 2 + 16
        axes.annotate(
            name, point, xytext=((left - x) / pixels_per_point, ((bottom + top) / 2 - y) / pixels_per_point),
            textcoords="offset points", va="center", fontsize=8.5, color=_INK, parse_math=False,
            arrowprops={"arrowstyle": "-", "color": _ORANGE, "linewidth": 0.6, "shrinkB": 3} if away else None,
        )  # fmt: skip


def free_place(point: tuple[float, float], size: tuple[float, float], taken: Sequence[Box], frame: Box) -> Box | None:
    """The nearest place for a label, of some around its point, where it covers nothing.

    Args:
        point: what the label names; in pixels, as everything here.
        size: width and height of the label.
        taken: boxes (left, bottom, right, top) to keep clear.
        frame: box to stay inside.

    Returns:
        the label's box, or None where every place tried is taken.
    """
    (x, y), (width, height) = point, size
    for distance in (8, 14, 22, 32, 44, 58):
        for across, up in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)):
            centre_x = x + across * (distance + width / 2)
            centre_y = y + up * (distance + height / 2)
            box = (centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2)
            inside = frame[0] <= box[0] and frame[1] <= box[1] and box[2] <= frame[2] and box[3] <= frame[3]
            if inside and not any(_overlap(box, other) for other in taken):
                return box
    return None


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _drawable(token: str | None, token_id: int) -> str:
    """A token if the font has all its letters, else its id."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    font = FT2Font(font_manager.findfont("DejaVu Sans"))
    if token is None or not all(font.get_char_index(ord(letter)) for letter in token):
        return f"id {token_id}"
    return token
