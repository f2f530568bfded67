"""Figures that are unknown to pyplot and its global state, and the PNG files made of them."""

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GREY, BLUE, ORANGE, RULE = "#333333", "#9aa5b1", "#2b6cb0", "#d9540c", "#e3e7eb"


def new_figure(width: float, height: float) -> "Figure":
    """A white figure of a given size in inches, whose parts keep clear of each other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain_axes(axes: "Axes") -> "Axes":
    """The same axes with neither a top nor a right side, on a pale grid."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8.5)
    return axes


def to_png(figure: "Figure", tight: bool = False) -> bytes:
    """A figure as a PNG file; the same figure gives the same bytes.

    Args:
        figure: what to draw.
        tight: cut the file to what is drawn, labels outside of the figure included.
    """
    content = io.BytesIO()
    how: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.12} if tight else {}
    figure.savefig(content, format="png", metadata={"Software": None}, **how)
    return content.getvalue()
