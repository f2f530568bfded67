"""Picture of how near partial models are to the whole one, against how much of it they have."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ks_lottery.errors import DataError
from ks_lottery.report.canvas import BLUE, GREY, INK, ORANGE, new_figure, plain_axes, to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Panel = Mapping[str, Mapping[float, Sequence[float]]]
"""Name of a method to density to distances, one for each seed."""

_STYLES = (
    (ORANGE, "o", "solid"), (BLUE, "s", (0, (6, 2))), (INK, "^", (0, (3, 1, 1, 1))), ("#6b7785", "D", (0, (1, 1.2))),
    (GREY, "x", (0, (8, 3))),
)  # fmt: skip


def nearness_picture(panels: Mapping[str, Panel], nothing: Mapping[str, float], label: str) -> bytes:
    """Distance against density, both logarithmic, one panel for each kind of unit.

    Lines join means over seeds; bars reach from the smallest to the largest of them. A dashed rule shows the model with
    nothing of the update.

    Args:
        panels: title to what is drawn in it; distances above 0. A method has one style in all panels.
        nothing: title to the distance of the model with nothing.
        label: of the distance.

    Returns:
        a PNG file.

    Raises:
        DataError: if there is nothing to draw, or a distance is not above 0.
    """
    methods = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    values = [one for panel in panels.values() for line in panel.values() for many in line.values() for one in many]
    if not values or not min(values) > 0:
        raise DataError("A picture of distances needs at least one, and all of them above 0.")
    figure = new_figure(max(6.4, 3.6 * len(panels) + 0.4), 4.4)
    every = [plain_axes(figure.add_subplot(1, len(panels), number + 1)) for number in range(len(panels))]
    for axes, (title, panel) in zip(every, panels.items(), strict=True):
        _draw(axes, panel, methods)
        if title in nothing:
            axes.axhline(nothing[title], color=INK, linewidth=1.0, linestyle=(0, (2, 2)), label="nothing of the update")
        axes.set_xscale("log")
        axes.set_yscale("log")
        places = sorted({density for line in panel.values() for density in line})
        axes.set_xticks(places, [f"{100 * density:g} %" for density in places])
        axes.minorticks_off()
        axes.margins(x=0.12)
        axes.set_title(title, fontsize=10, color=INK, parse_math=False)
        axes.set_xlabel("density, share of the units", fontsize=9)
    every[0].set_ylabel(label, fontsize=9)
    shown = {}
    for axes in every:
        shown.update(dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True)))
    figure.legend(list(shown.values()), list(shown), loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    return to_png(figure)


def _draw(axes: "Axes", panel: Panel, methods: Sequence[str]) -> None:
    for name, line in panel.items():
        colour, mark, style = _STYLES[methods.index(name) % len(_STYLES)]
        densities = sorted(line)
        axes.plot(
            densities, [float(np.mean(line[one])) for one in densities], color=colour, marker=mark, markersize=5.5,
            linewidth=1.6, linestyle=style, label=name,
        )  # fmt: skip
        for one in densities:
            axes.plot((one, one), (min(line[one]), max(line[one])), color=colour, linewidth=0.9)
