"""The pictures of the planted benchmark: precision of every finder, and precision against density; PNG files."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ks_lottery.evaluation.planted import PlantedRow
from ks_lottery.report.canvas import GREY, INK, new_figure, plain_axes, to_png
from ks_lottery.report.planted_tables import FAMILIES, FAMILY_NAMES, cases_of, finders_of, mean, of_finder

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7a5195", "#333333")
_MARKS = "osD^vPX*"
_LINES = ("solid", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 2, 1, 2)))


def precision_picture(rows: Sequence[PlantedRow]) -> bytes:
    """Precision of every finder on every case as a table of shades; empty where the finder does not apply."""
    finders, cases = finders_of(rows), cases_of(rows)
    values = np.full((len(finders), len(cases)), np.nan)
    for line, finder in enumerate(finders):
        for column, case in enumerate(cases):
            found = mean(of_finder(rows, finder, case), lambda row: row.precision)
            values[line, column] = np.nan if found is None else found
    figure = new_figure(2.4 + 0.8 * len(cases), 1.0 + 0.3 * len(finders))
    axes = figure.add_subplot()
    axes.imshow(values, cmap="Greys", vmin=0.0, vmax=1.0, aspect="auto")
    for (line, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            axes.text(
                column, line, f"{value:.2f}", ha="center", va="center", fontsize=8,
                color="white" if value > 0.45 else INK,
            )  # fmt: skip
    chance = [mean([row for row in rows if row.case == case], lambda row: row.density) for case in cases]
    names = [f"{case}\n(chance {value:.2g})" for case, value in zip(cases, chance, strict=True)]
    axes.set_xticks(range(len(cases)), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(finders)), finders)
    for tick in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        tick.set_parse_math(False)
    axes.tick_params(length=0, labelsize=8.5)
    _rule_families(axes, rows, finders)
    axes.set_title("precision at the planted number of units", fontsize=10, color=INK)
    return to_png(figure)


def curve_picture(rows: Sequence[PlantedRow]) -> bytes:
    """Precision against density on one case, one panel for each kind of evidence.

    The dotted slope is what a finder without a mistake reaches, the grey dashes are chance, the grey bar marks the
    planted density.
    """
    drawn = [row for row in rows if row.curve]
    families = [name for name in FAMILIES if any(row.looks_at == name for row in drawn)]
    planted = drawn[0].density
    figure = new_figure(1.0 + 2.9 * len(families), 3.9)
    first: Axes | None = None
    for number, family in enumerate(families, 1):
        axes = plain_axes(figure.add_subplot(1, len(families), number, sharex=first, sharey=first))
        first = first or axes
        here = [row for row in drawn if row.looks_at == family]
        for place, finder in enumerate(finders_of(here)):
            xs, ys = _mean_curve(of_finder(here, finder))
            axes.plot(
                xs, ys, label=finder, color=_COLOURS[place % len(_COLOURS)], marker=_MARKS[place % len(_MARKS)],
                linestyle=_LINES[place % len(_LINES)], markersize=5, linewidth=1.3,
            )  # fmt: skip
        reach = np.geomspace(*_span(drawn), 50)
        axes.plot(reach, np.minimum(1.0, planted / reach), color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
        axes.axhline(planted, color=GREY, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.axvline(planted, color=GREY, linewidth=5, alpha=0.3, zorder=0)
        _scale(axes, family, sorted({density for row in drawn for density, *_ in row.curve}), number == 1)
    return to_png(figure)


def _scale(axes: "Axes", family: str, densities: Sequence[float], outermost: bool) -> None:
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log")
    axes.set_xticks(densities)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.2g}")
    axes.set_ylim(-0.03, 1.05)
    axes.set_title(FAMILY_NAMES[family], fontsize=9.5, color=INK)
    axes.set_xlabel("density, % of the units", fontsize=9)
    if outermost:
        axes.set_ylabel("precision", fontsize=9)
    legend = axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False, fontsize=8, ncols=2)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _span(rows: Sequence[PlantedRow]) -> tuple[float, float]:
    densities = [density for row in rows for density, *_ in row.curve]
    return min(densities), max(*densities, 1.01 * min(densities))


def _mean_curve(rows: Sequence[PlantedRow]) -> tuple[list[float], list[float]]:
    """Densities and mean precision over seeds."""
    found: dict[float, list[float]] = {}
    for row in rows:
        for density, precision, _ in row.curve:
            found.setdefault(round(density, 9), []).append(precision)
    xs = sorted(found)
    return xs, [float(np.mean(found[x])) for x in xs]


def _rule_families(axes: "Axes", rows: Sequence[PlantedRow], finders: Sequence[str]) -> None:
    """Lines between finders of different evidence, whose names stand on the right."""
    looks = [of_finder(rows, finder)[0].looks_at for finder in finders]
    for family in dict.fromkeys(looks):
        places = [number for number, one in enumerate(looks) if one == family]
        if places[0]:
            axes.axhline(places[0] - 0.5, color=INK, linewidth=0.8)
        axes.text(
            1.02, sum(places) / len(places), FAMILY_NAMES.get(family, family), fontsize=8, va="center", color=INK,
            transform=axes.get_yaxis_transform(),
        )  # fmt: skip
