"""The subset of some items whose sum comes closest to a target: exactly, and greedily as a negative control."""

from typing import NamedTuple

import numpy as np

from ks_lottery.errors import OptionError

MOST_ITEMS = 30
_SUMS_AT_ONCE = 1 << 19


class SubsetSums(NamedTuple):
    """Chosen subsets.

    Attributes:
        mask: [..., n] bool: the items of the subset.
        error: [...] float64: distance of the subset's sum from its target.
    """

    mask: np.ndarray
    error: np.ndarray


def solve(items: np.ndarray, targets: np.ndarray) -> SubsetSums:
    """Subsets whose sums are as close to their targets as any subset's.

    The items are split in two halves. All sums of the first half are sorted, and for each sum of the second one the
    closest of them is looked up.

    Args:
        items: [..., n] numbers, n at most `MOST_ITEMS`.
        targets: [...] numbers. The leading dimensions of both are broadcast: many targets may share their items.

    Returns:
        The best subset of each target; among equally good ones always the same.

    Raises:
        OptionError: if there are more items than `MOST_ITEMS`, a value or a sum of items is not finite, or the shapes
            do not fit.

    Cost:
        O(n * 2 ** (n / 2)) time for each target: 0.05 ms with 16 items, 10 ms with 30. Memory of about 30 MiB beyond
        inputs and results.

    Source:
        Horowitz & Sahni 1974 (the two halves); Pensia et al. 2020, arXiv 2006.07990, solve the same problem as a mixed
        integer program.
    """
    items, targets = _fit(items, targets)
    count = items.shape[-1]
    if count > MOST_ITEMS:
        raise OptionError(
            f"{count} items have 2 ** {count} subsets; the exact solver takes at most {MOST_ITEMS} items. Split the "
            "items and their targets, give fewer, or use `greedy`, whose error falls much more slowly."
        )
    if not items.size:
        return SubsetSums(np.zeros(items.shape, bool), np.abs(targets))
    shape = targets.shape
    items, targets = items.reshape(-1, count), targets.reshape(-1)
    step = max(1, _SUMS_AT_ONCE >> (count + 1) // 2)
    starts = range(0, len(targets), step)
    mask = np.concatenate([_closest(items[at : at + step], targets[at : at + step]) for at in starts])
    return _result(mask.reshape(*shape, count), items.reshape(*shape, count), targets.reshape(shape))


def greedy(items: np.ndarray, targets: np.ndarray) -> SubsetSums:
    """Subsets grown by the item that brings the sum closest to its target, until none brings it closer.

    The negative control of `solve`: its error falls slowly with the number of items. Arguments and errors as there, but
    any number of items.

    Cost:
        O(n ** 2) time for each target.
    """
    items, targets = _fit(items, targets)
    mask = np.zeros(items.shape, bool)
    rest = targets.astype(np.float64)
    for _ in range(items.shape[-1]):
        distance = np.where(mask, np.inf, np.abs(rest[..., None] - items))
        best = distance.argmin(axis=-1)[..., None]
        closer = np.take_along_axis(distance, best, axis=-1)[..., 0] < np.abs(rest)
        if not closer.any():
            break
        rest = rest - np.where(closer, np.take_along_axis(items, best, axis=-1)[..., 0], 0.0)
        np.put_along_axis(mask, best, np.take_along_axis(mask, best, axis=-1) | closer[..., None], axis=-1)
    return _result(mask, items, targets)


def _closest(items: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """[b, n] bool: best subsets of [b, n] items for [b] targets."""
    half = items.shape[1] // 2
    first, second = _all_sums(items[:, :half]), _all_sums(items[:, half:])
    order = first.argsort(axis=1, kind="stable")
    first = np.take_along_axis(first, order, axis=1)
    wanted = targets[:, None] - second
    above = np.stack([np.searchsorted(row, values) for row, values in zip(first, wanted, strict=True)])
    below = np.maximum(above - 1, 0)
    np.minimum(above, first.shape[1] - 1, out=above)
    far_above = np.abs(np.take_along_axis(first, above, axis=1) - wanted)
    far_below = np.abs(np.take_along_axis(first, below, axis=1) - wanted)
    of_second = np.minimum(far_above, far_below).argmin(axis=1)[:, None]
    nearer = np.where(far_below < far_above, below, above)
    of_first = np.take_along_axis(order, np.take_along_axis(nearer, of_second, axis=1), axis=1)
    return np.concatenate([_bits(of_first, half), _bits(of_second, items.shape[1] - half)], axis=1)


def _all_sums(items: np.ndarray) -> np.ndarray:
    """[b, 2 ** n]: the sum of each subset of [b, n] items; bit k of the place says whether item k is in it."""
    sums = np.zeros((len(items), 1))
    for item in items.T:
        sums = np.concatenate([sums, sums + item[:, None]], axis=1)
    return sums


def _bits(places: np.ndarray, count: int) -> np.ndarray:
    """[b, count] bool: the lowest bits of [b, 1] integers."""
    return (places >> np.arange(count)) & 1 == 1


def _result(mask: np.ndarray, items: np.ndarray, targets: np.ndarray) -> SubsetSums:
    return SubsetSums(mask, np.abs(np.where(mask, items, 0.0).sum(axis=-1) - targets))


def _fit(items: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 with the same leading dimensions."""
    items, targets = np.asarray(items, np.float64), np.asarray(targets, np.float64)
    if not items.ndim:
        raise OptionError(f"items={items!r} is a single number. Give an array whose last dimension holds the items.")
    try:
        shape = np.broadcast_shapes(items.shape[:-1], targets.shape)
    except ValueError as error:
        raise OptionError(
            f"Items of shape {items.shape} and targets of shape {targets.shape} do not fit. Give items [..., n] for "
            "targets [...]."
        ) from error
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(np.abs(items).sum(axis=-1) + np.abs(targets))
    if not finite.all():
        where = tuple(int(place) for place in np.argwhere(~finite)[0])
        raise OptionError(
            f"Items or target number {where} hold NaN or infinity, or have a sum that is too large for float64: items "
            f"{np.broadcast_to(items, (*shape, items.shape[-1]))[where].tolist()}, target "
            f"{np.broadcast_to(targets, shape)[where].item()!r}. Give finite numbers."
        )
    return np.broadcast_to(items, (*shape, items.shape[-1])), np.broadcast_to(targets, shape)
