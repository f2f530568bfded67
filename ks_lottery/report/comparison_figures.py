"""The figures of a comparison's HTML page: drawings that say what one points at, and overlaps as heat maps."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ks_lottery.report.comparison_cells import Table
from ks_lottery.report.comparison_plots import Drawn, cost_drawing, density_drawing, overlap_matrix
from ks_lottery.report.html.figure import Figure, Stack
from ks_lottery.report.html.heat_map import Cell, HeatMap
from ks_lottery.report.html.picture import Picture


def table_figures(table: Table, files: Mapping[str, str]) -> dict[str, Picture]:
    """Score against density and against cost.

    Args:
        table: of one kind and granularity.
        files: names of the pictures' files: "density", "cost".
    """
    return {
        files["density"]: _picture(density_drawing(table), "Score against density"),
        files["cost"]: _picture(cost_drawing(table), "Score against what finding and training cost"),
    }


def overlap_figure(overlaps: Sequence[Mapping[str, Any]]) -> Figure:
    """A heat map for each density: the mean Jaccard index of the tickets of every two methods.

    Args:
        overlaps: of one kind and granularity; see `overlap_picture`.
    """
    methods = list(dict.fromkeys(entry[side] for entry in overlaps for side in ("first", "second")))
    maps = []
    for density in sorted({entry["density"] for entry in overlaps}, reverse=True):
        here = [entry for entry in overlaps if entry["density"] == density]
        chance = float(np.mean([entry["chance"] for entry in here]))
        values = overlap_matrix(here, methods)
        rows = [(one, [_cell(one, other, float(values[r, c]), chance) for c, other in enumerate(methods)])
                for r, one in enumerate(methods)]  # fmt: skip
        title = f"Overlap at density {100 * density:.3g} %; chance {chance:.3f}"
        maps.append(HeatMap(title, rows, "method", methods, ("least", "most"), "a method with itself"))
    return Stack(maps)


def _cell(one: str, other: str, value: float, chance: float) -> Cell:
    if math.isnan(value):
        return Cell(None, "", "")
    what = f"two replicates of {one}" if one == other else f"{one} and {other}"
    return Cell(value, f"{value:.2f}", f"{what}: Jaccard {value:.3f}, by chance {chance:.3f}", one == other)


def _picture(drawn: Drawn, title: str) -> Picture:
    return Picture(
        drawn.figure, title, "A mark for each method and density, a panel for each task. The tables have the numbers.",
        drawn.notes,
    )  # fmt: skip
