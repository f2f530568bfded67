"""Set operations on selected units, group by group."""

from collections.abc import Callable, Mapping

import numpy as np

Indices = Mapping[str, np.ndarray]

OPERATIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "&": np.intersect1d,
    "|": np.union1d,
    "-": np.setdiff1d,
}


def combine(operation: str, left: Indices, right: Indices) -> dict[str, np.ndarray]:
    """Apply `&`, `|` or `-` to the units of each group.

    Args:
        operation: a key of `OPERATIONS`.
        left: group name to [k] int64 units.
        right: the same groups.

    Returns:
        group name to sorted int64 units; possibly empty.
    """
    return {name: OPERATIONS[operation](left[name], right[name]) for name in left}


def jaccard(left: Indices, right: Indices) -> float:
    """Size of the intersection over size of the union, counted over all groups; 1.0 if both are empty."""
    shared = sum(len(units) for units in combine("&", left, right).values())
    union = sum(len(units) for units in combine("|", left, right).values())
    return shared / union if union else 1.0
