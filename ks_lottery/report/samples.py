"""Pictures of what generators draw: clouds of points in the plane, side by side."""

from collections.abc import Mapping

import numpy as np

from ks_lottery.errors import DataError
from ks_lottery.report.canvas import BLUE, INK, new_figure, plain_axes, to_png

_REACH = 2.0


def samples_picture(clouds: Mapping[str, np.ndarray], shown: int = 500) -> bytes:
    """One square for each cloud of points, all of one scale, three in a row.

    Args:
        clouds: title to [n, 2] float points; the first cloud, the data, is drawn dark.
        shown: points of each cloud that are drawn, the first ones.

    Returns:
        a PNG file.

    Raises:
        DataError: if there is no cloud, or one is not of points in the plane.
    """
    wrong = {title: points.shape for title, points in clouds.items() if points.ndim != 2 or points.shape[1:] != (2,)}
    if wrong or not clouds:
        raise DataError(
            f"samples_picture draws clouds of points [n, 2], but got {wrong or 'none'}. Give at least one of them."
        )
    columns = min(3, len(clouds))
    rows = -(-len(clouds) // columns)
    figure = new_figure(2.6 * columns, 3.0 * rows)
    for number, (title, points) in enumerate(clouds.items(), 1):
        axes = plain_axes(figure.add_subplot(rows, columns, number))
        drawn = points[:shown]
        inside = (np.abs(drawn) <= _REACH).all(axis=1)
        axes.scatter(drawn[inside, 0], drawn[inside, 1], s=3.0, color=INK if number == 1 else BLUE, linewidths=0)
        axes.set(xlim=(-_REACH, _REACH), ylim=(-_REACH, _REACH), aspect="equal", xticks=(-1, 0, 1), yticks=(-1, 0, 1))
        outside = int((~inside).sum())
        axes.set_title(
            f"{title}\n{f'{outside:,} of {len(drawn):,} outside' if outside else ''}", fontsize=9, parse_math=False
        )
    return to_png(figure)
