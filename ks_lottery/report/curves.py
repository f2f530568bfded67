"""Pictures of stability: the path between two replicates, and its barrier against the rewind step."""

from collections.abc import Mapping

from ks_lottery.errors import DataError
from ks_lottery.evaluation.stability import ERROR, LOSS, Connectivity, Instability
from ks_lottery.report.canvas import BLUE, GREY, INK, ORANGE, new_figure, plain_axes, to_png

_MARKS = "osD^vPX"


def path_picture(paths: Mapping[str, Connectivity]) -> bytes:
    """Loss and error along the straight path between two replicates.

    Args:
        paths: label to path; the barriers stand behind the labels.

    Returns:
        a PNG file.

    Raises:
        DataError: if there is no path.
    """
    if not paths:
        raise DataError("There is no path to draw. Give at least one.")
    figure = new_figure(9.0, 3.6)
    for column, (name, label, scale, form) in enumerate(
        ((LOSS, "loss", 1.0, "{:.2g}"), (ERROR, "error, %", 100.0, "{:.2g} points")), 1
    ):
        axes = plain_axes(figure.add_subplot(1, 2, column))
        for number, (title, path) in enumerate(paths.items()):
            colour = _colour(number, len(paths))
            values = [scale * value for value in path.curves[name]]
            axes.plot(
                path.positions, values, color=colour, marker=_MARKS[number % len(_MARKS)], markersize=3.5,
                linewidth=1.5, label=f"{title}: barrier {form.format(scale * path.barrier(name))}",
            )  # fmt: skip
            axes.plot((0, 1), (values[0], values[-1]), color=colour, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set_xticks((0, 0.5, 1), ("one replicate", "half way", "the other"))
        axes.get_xticklabels()[0].set_horizontalalignment("left")
        axes.get_xticklabels()[-1].set_horizontalalignment("right")
        axes.set_ylim(bottom=0)
        axes.set_ylabel(label)
        legend = axes.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize=8.5)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return to_png(figure)


def instability_picture(instability: Instability, unit: str = "rewind step") -> bytes:
    """Error barrier and loss barrier against the rewind step; the threshold and the onset marked.

    Args:
        instability: what to draw.
        unit: what the steps count, as the axis is called.

    Returns:
        a PNG file.
    """
    onset = "no onset" if instability.onset is None else f"onset at {instability.onset:,}"
    places = range(len(instability.steps))
    figure = new_figure(9.0, 3.4)
    for column, (name, label, scale) in enumerate(
        ((LOSS, "loss barrier", 1.0), (ERROR, "error barrier, points", 100.0)), 1
    ):
        axes = plain_axes(figure.add_subplot(1, 2, column))
        barriers = [scale * barrier for barrier in instability.barriers(name)]
        axes.plot(places, barriers, color=BLUE, marker="o", markersize=5, linewidth=1.5)
        if name == ERROR:
            limit = 100 * instability.threshold
            axes.axhline(
                limit, color=ORANGE, linewidth=1.2, linestyle=(0, (4, 3)), label=f"stable below {limit:g}: {onset}"
            )
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize=8.5)
        if instability.onset is not None:
            axes.axvline(instability.steps.index(instability.onset), color=GREY, linewidth=5, alpha=0.35, zorder=0)
        axes.set_xticks(list(places), [f"{step:,}" for step in instability.steps])
        axes.set_xlim(-0.3, len(instability.steps) - 0.7)
        axes.set_ylim(bottom=min(0.0, 1.1 * min(barriers)))
        axes.set_xlabel(f"{unit} from which the replicates differ", fontsize=9)
        axes.set_ylabel(label, fontsize=9)
    return to_png(figure)


def _colour(number: int, count: int) -> str:
    return (ORANGE, BLUE, INK, GREY)[number % 4] if count > 1 else BLUE
