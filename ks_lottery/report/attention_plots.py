"""Pictures of strong tickets of attention: the error against width, length, number of blocks and scale."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ks_lottery.errors import DataError
from ks_lottery.report.canvas import BLUE, GREY, INK, ORANGE, new_figure, plain_axes, to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = (BLUE, ORANGE, INK, GREY)
_MARKS = "osD^vP"
_LINES = ("solid", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 2, 1, 2)))


@dataclass(frozen=True)
class ErrorCurve:
    """Errors of several draws at each place of an axis.

    Attributes:
        label: what the legend says.
        places: [p] positions on the axis, ascending.
        errors: [p] of the errors of all draws at that place, above 0.

    Raises:
        DataError: if there is no place, a place has no draw, or an error cannot stand on a logarithmic axis.
    """

    label: str
    places: Sequence[float]
    errors: Sequence[Sequence[float]]

    def __post_init__(self) -> None:
        if not self.places or len(self.places) != len(self.errors) or not all(len(draws) for draws in self.errors):
            raise DataError(
                f"Curve {self.label!r} has {len(self.places)} places and errors at {sum(map(bool, self.errors))} of "
                f"{len(self.errors)}. Give at least one place, and the errors of at least one draw at each."
            )
        wrong = [error for draws in self.errors for error in draws if not 0 < error < math.inf]
        if wrong:
            raise DataError(
                f"Curve {self.label!r} holds the error {wrong[0]!r}, which has no place on a logarithmic axis. Give "
                "finite errors above 0."
            )

    @property
    def medians(self) -> list[float]:
        """Median of the draws at each place."""
        return [float(np.median(draws)) for draws in self.errors]


@dataclass(frozen=True)
class ExponentialFit:
    """error = factor * exp(rate * place), by least squares of the logarithms of a curve's medians.

    Attributes:
        factor: at place 0.
        rate: change of log(error) per unit of the axis.
    """

    factor: float
    rate: float

    @classmethod
    def of(cls, curve: ErrorCurve) -> "ExponentialFit":
        """The fit of a curve of at least two places."""
        rate, start = np.polyfit(curve.places, np.log(curve.medians), 1)
        return cls(math.exp(start), float(rate))

    def at(self, place: float) -> float:
        """The fitted error."""
        return self.factor * math.exp(self.rate * place)

    def __str__(self) -> str:
        return f"{self.factor:.3g} exp({self.rate:.2f} n')"


def width_picture(curves: Sequence[ErrorCurve], bound: ErrorCurve | None = None, fitted: bool = True) -> bytes:
    """Error against the width per value of a token, with quartiles of the draws; a PNG file.

    Args:
        curves: one for each length, number of blocks, or kind of source.
        bound: computed bound on the error, drawn grey.
        fitted: draw an exponential fit to each curve, thin.
    """
    figure = new_figure(7.2, 4.4)
    axes = plain_axes(figure.add_subplot())
    if bound is not None:
        axes.plot(bound.places, bound.medians, color=GREY, linestyle=(0, (5, 2)), linewidth=1.6, label=bound.label)
    for number, curve in enumerate(curves):
        label = curve.label
        colour = _COLOURS[number % len(_COLOURS)]
        if fitted:
            fit = ExponentialFit.of(curve)
            label += f"; fit {fit}"
            ends = (curve.places[0], curve.places[-1])
            axes.plot(ends, [fit.at(place) for place in ends], color=colour, linewidth=0.8, alpha=0.7)
        shift = 0.12 * (number - (len(curves) - 1) / 2)
        _draw(axes, curve, number, label, shift)
    axes.set_xticks(list(curves[0].places))
    axes.set_xlabel("source width per value of a token, n' (items of each subset sum)", fontsize=9)
    _finish(axes)
    return to_png(figure)


def length_picture(curves: Sequence[ErrorCurve], bounds: Sequence[ErrorCurve] = ()) -> bytes:
    """Error against the number of tokens, both logarithmic; a PNG file.

    Args:
        curves: one for each width.
        bounds: of the same widths in the same order; drawn thin, in the line of their curve.
    """
    figure = new_figure(7.2, 4.4)
    axes = plain_axes(figure.add_subplot())
    for number, curve in enumerate(curves):
        _draw(axes, curve, number, curve.label, 0.0)
    for number, bound in enumerate(bounds):
        colour, line = _COLOURS[number % len(_COLOURS)], _LINES[number % len(_LINES)]
        axes.plot(bound.places, bound.medians, color=colour, linestyle=line, linewidth=0.9, label=bound.label)
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(curves[0].places), [f"{place:,.0f}" for place in curves[0].places])
    axes.minorticks_off()
    axes.set_xlabel("tokens, T", fontsize=9)
    _finish(axes)
    return to_png(figure)


def scale_picture(curves: Sequence[ErrorCurve], marked: float, name: str, label: str = "largest error") -> bytes:
    """Error against the scale of W_Q and W_K, both logarithmic; a PNG file.

    Args:
        curves: what to draw.
        marked: the scale of the theorem, marked by a broad grey line.
        name: how that line is called.
        label: of the vertical axis.
    """
    figure = new_figure(7.2, 4.0)
    axes = plain_axes(figure.add_subplot())
    axes.axvline(marked, color=GREY, linewidth=5, alpha=0.35, zorder=0, label=name)
    for number, curve in enumerate(curves):
        _draw(axes, curve, number, curve.label, 0.0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(curves[0].places), [f"{place:.3g}" for place in curves[0].places])
    axes.minorticks_off()
    axes.set_xlabel("scale of the entries of W_Q and W_K", fontsize=9)
    _finish(axes, label)
    return to_png(figure)


def _draw(axes: "Axes", curve: ErrorCurve, number: int, label: str, shift: float) -> None:
    """Medians as a line, quartiles as bars."""
    low, middle, high = (np.array([np.quantile(draws, q) for draws in curve.errors]) for q in (0.25, 0.5, 0.75))
    places = np.asarray(curve.places, dtype=float) + shift
    axes.errorbar(
        places, middle, yerr=(middle - low, high - middle), color=_COLOURS[number % len(_COLOURS)],
        linestyle=_LINES[number % len(_LINES)], marker=_MARKS[number % len(_MARKS)], markersize=4.5, linewidth=1.5,
        elinewidth=0.8, label=label,
    )  # fmt: skip


def _finish(axes: "Axes", label: str = "largest error of a token") -> None:
    axes.set_yscale("log")
    axes.set_ylabel(f"{label} (median, quartiles)", fontsize=9)
    legend = axes.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize=8.5)
    for text in legend.get_texts():
        text.set_parse_math(False)
