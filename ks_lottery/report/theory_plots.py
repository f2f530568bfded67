"""Pictures of what theory promises beside what was measured: subset sums, strong tickets, universal tickets."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ks_lottery.report.canvas import BLUE, GREY, INK, ORANGE, new_figure, plain_axes, to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLES = ((BLUE, "o", "-"), (ORANGE, "s", "--"), (INK, "^", ":"), (GREY, "D", "-."))


def subset_sum_picture(record: Mapping[str, Any]) -> bytes:
    """Error against the number of items with greedy and the rule, and the share of targets out of reach.

    Args:
        record: with `items`, the numbers of items; `exact`, `greedy`, `reached`, an error for each; `constant`, the C
            of the rule; and `missed`, error to the share of targets for each number.

    Returns:
        a PNG file.
    """
    import numpy as np

    figure = new_figure(9.6, 3.9)
    left, right = (plain_axes(figure.add_subplot(1, 2, column)) for column in (1, 2))
    items: list[int] = list(record["items"])
    for name, label, style in (
        ("greedy", "greedy, median", _STYLES[1]),
        ("exact", "exact, median", _STYLES[0]),
        ("reached", "exact, missed with a chance of at most this", _STYLES[2]),
    ):
        _line(left, items, record[name], style, label)
    rule = np.exp(-np.asarray(items) / record["constant"])
    left.plot(items, rule, color=INK, linewidth=1.1, label=f"rule, exp(-n / {record['constant']})")
    left.set_yscale("log")
    left.set_ylabel("distance from the target", fontsize=9)
    for (error, shares), style in zip(record["missed"].items(), _STYLES, strict=False):
        shown = [(count, share) for count, share in zip(items, shares, strict=True) if share > 0]
        _line(
            right, [count for count, _ in shown], [share for _, share in shown], style, f"missed by more than {error}"
        )
    right.axhline(0.01, color=INK, linewidth=1.1, linestyle=(0, (1, 2)))
    right.annotate("1 %", (items[0], 0.01), xytext=(0, 3), textcoords="offset points", fontsize=8.5, color=INK)
    right.set_yscale("log")
    right.set_ylabel("share of targets", fontsize=9)
    for axes in (left, right):
        axes.set_xlabel("items: products of two U(-1, 1)", fontsize=9)
        axes.set_xticks(items[::2])
        _legend(axes)
    return to_png(figure)


def widths_picture(record: Mapping[str, Any]) -> bytes:
    """Measured error of strong tickets against their width, beside the width that each bound asks for that error.

    Args:
        record: construction to a mapping of `widths`, `median` and `worst` (measured errors), `asked` and `eps` (widths
            that the bound asks for these errors).

    Returns:
        a PNG file.
    """
    figure = new_figure(9.6, 4.2)
    axes = plain_axes(figure.add_subplot())
    for (name, rows), (colour, marker, style) in zip(record.items(), _STYLES, strict=False):
        title = name.capitalize()
        axes.plot(
            rows["widths"], rows["median"], color=colour, marker=marker, markersize=5, linestyle=style, linewidth=1.5,
            label=f"{title}: measured, median and worst draw",
        )  # fmt: skip
        axes.vlines(rows["widths"], rows["median"], rows["worst"], color=colour, linewidth=1.0)
        axes.plot(
            rows["asked"], rows["eps"], color=colour, marker=marker, markerfacecolor="white", markersize=6,
            linestyle=style, linewidth=1.0, label=f"{title}: what the bound asks for",
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("units of the first random layer", fontsize=9)
    axes.set_ylabel("largest error of the output on the unit sphere", fontsize=9)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8.5)
    return to_png(figure)


def sparse_source_picture(record: Mapping[str, Any]) -> bytes:
    """Share of random sparse sources that hold a target, against their width, with the width that the rule asks for.

    Args:
        record: density to a mapping of `widths`, `found` (share of draws) and `asked`.

    Returns:
        a PNG file.
    """
    figure = new_figure(9.6, 3.9)
    axes = plain_axes(figure.add_subplot())
    for (density, rows), style in zip(record.items(), _STYLES, strict=False):
        _line(
            axes, rows["widths"], rows["found"], style, f"density {density}: the rule asks for {rows['asked']:,} units"
        )
        axes.axvline(rows["asked"], color=style[0], linestyle=style[2], linewidth=1.0)
    axes.set_xscale("log")
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("units of the random layer (vertical: what the rule asks for)", fontsize=9)
    axes.set_ylabel("share of sources that hold the target", fontsize=9)
    _legend(axes)
    return to_png(figure)


def universal_picture(sine: Mapping[str, Any], families: Mapping[str, Sequence[Mapping[str, float]]]) -> bytes:
    """A sine computed by a masked random network, and what readouts of universal tickets explain of their tasks.

    Args:
        sine: `inputs`, `wanted` and `outputs`, as long as each other, and `error`.
        families: name to its tasks, each with `ticket` and `inputs`: R2 of a readout of features, and of raw inputs.

    Returns:
        a PNG file.
    """
    figure = new_figure(9.6, 3.9)
    left, right = (plain_axes(figure.add_subplot(1, 2, column)) for column in (1, 2))
    left.plot(sine["inputs"], sine["wanted"], color=GREY, linewidth=5, alpha=0.6, label="sin(2 pi x)")
    left.plot(
        sine["inputs"], sine["outputs"], color=INK, linewidth=1.2,
        label=f"masked random network, error at most {sine['error']:.3f}",
    )  # fmt: skip
    left.set_xlabel("x", fontsize=9)
    left.set_ylabel("output", fontsize=9)
    places: list[int] = []
    names: list[str] = []
    for tasks in families.values():
        start = places[-1] + 2 if places else 0
        for number, task in enumerate(tasks):
            first, place = not places, start + number
            for key, (colour, marker, _), label in (
                ("ticket", _STYLES[0], "readout of the ticket's features"),
                ("inputs", _STYLES[1], "readout of the inputs"),
            ):
                right.plot(
                    place, task[key], color=colour, marker=marker, markersize=6, linestyle="none",
                    label=label if first else None,
                )  # fmt: skip
            places.append(place)
            names.append(str(number + 1))
    right.set_xticks(places, names)
    right.set_xlabel(", then ".join(f"{len(tasks)} {name}" for name, tasks in families.items()), fontsize=9)
    right.set_ylabel("explained variance of the task, R2", fontsize=9)
    right.set_ylim(-0.05, 1.05)
    for axes in (left, right):
        _legend(axes)
    return to_png(figure)


def _line(axes: "Axes", x: Sequence[float], y: Sequence[float], style: tuple[str, str, str], label: str) -> None:
    colour, marker, line = style
    axes.plot(x, y, color=colour, marker=marker, markersize=4.5, linestyle=line, linewidth=1.5, label=label)


def _legend(axes: "Axes") -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize=8.5)
