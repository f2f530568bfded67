"""The exact solver against brute force and against a mixed integer program; the law of its error, and of greedy's."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.optimize import Bounds, LinearConstraint, milp

from ks_lottery.errors import OptionError
from ks_lottery.theory.subset_sum import MOST_ITEMS, greedy, solve

NUMBERS = st.floats(-4, 4, width=32)


def by_brute_force(items: np.ndarray, target: float) -> float:
    return min(
        abs(sum(itertools.compress(items.tolist(), chosen)) - target)
        for chosen in itertools.product([False, True], repeat=len(items))
    )


def products(seed: int, draws: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    items = draw.uniform(-1, 1, (draws, count)) * draw.uniform(-1, 1, (draws, count))
    return items, draw.uniform(-1, 1, draws)


@given(arrays(np.float64, st.integers(0, 12), elements=NUMBERS), NUMBERS)
def test_no_subset_is_closer(items: np.ndarray, target: float) -> None:
    found = solve(items, np.array(target))
    assert found.mask.shape == items.shape
    assert found.mask.dtype == bool
    assert found.error == pytest.approx(by_brute_force(items, target), abs=1e-12)
    assert found.error == pytest.approx(abs(items[found.mask].sum() - target), abs=1e-12)


@given(st.data())
def test_a_batch_is_its_rows(data: st.DataObject) -> None:
    shape = data.draw(array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=3))
    count = data.draw(st.integers(0, 7))
    items = data.draw(arrays(np.float32, (*shape, count), elements=NUMBERS))
    targets = data.draw(arrays(np.float32, shape, elements=NUMBERS))
    for method in (solve, greedy):
        found = method(items, targets)
        assert found.mask.shape == items.shape
        assert found.error.shape == shape
        for place in np.ndindex(shape):
            alone = method(items[place], targets[place])
            assert np.array_equal(found.mask[place], alone.mask)
            assert found.error[place] == alone.error


def test_many_targets_share_their_items() -> None:
    items, targets = products(0, 5, 9)
    found = solve(items[0], targets)
    assert found.mask.shape == (5, 9)
    assert found.error.tolist() == [float(solve(items[0], target).error) for target in targets]


def test_as_good_as_a_mixed_integer_program() -> None:
    """Variables: the choice of each item and the distance, which is at least both differences."""
    items, targets = products(1, 6, 14)
    found = solve(items, targets)
    for row, target, error in zip(items, targets, found.error, strict=True):
        bounds = Bounds(np.zeros(15), np.append(np.ones(14), np.inf))
        above = LinearConstraint(np.append(row, -1.0), ub=target)
        below = LinearConstraint(np.append(row, 1.0), lb=target)
        result = milp(
            np.append(np.zeros(14), 1.0),
            integrality=np.append(np.ones(14), 0),
            bounds=bounds,
            constraints=[above, below],
        )
        assert error <= result.fun + 1e-9
        assert error == pytest.approx(result.fun, abs=1e-5)


def test_all_items_that_are_allowed() -> None:
    items, targets = products(2, 3, MOST_ITEMS)
    planted = np.random.default_rng(3).random(items.shape) < 0.5
    targets[0] = items[0][planted[0]].sum()
    found = solve(items, targets)
    assert found.error[0] < 1e-14
    assert found.error.max() < 1e-7


@pytest.mark.parametrize("seed", [0, 1])
def test_the_error_halves_with_every_item_and_that_of_greedy_does_not(seed: int) -> None:
    """Products of two U(-1, 1) and targets U(-1, 1); measured by hand: -1.01 for exact, about -.2 for greedy."""
    counts = np.arange(6, 19, 2)
    exact, fast = [], []
    for count in counts:
        items, targets = products(seed * 100 + count, 2000, count)
        exact.append(np.median(solve(items, targets).error))
        fast.append(np.median(greedy(items, targets).error))
    assert np.polyfit(counts, np.log2(exact), 1)[0] == pytest.approx(-1.0, abs=0.1)
    assert np.polyfit(counts, np.log2(fast), 1)[0] > -0.35
    assert fast[:6] == pytest.approx([5e-2, 2.6e-2, 1.4e-2, 1e-2, 7e-3, 6e-3], rel=0.25)
    assert exact[:6] == pytest.approx([2.3e-2, 4.0e-3, 9.9e-4, 2.6e-4, 6.1e-5, 1.8e-5], rel=0.25)


@pytest.mark.parametrize(
    ("factors", "eps", "delta", "count"),
    [(2, 0.01, 0.1, 12), (2, 0.01, 0.01, 19), (1, 0.01, 0.1, 10), (1, 0.01, 0.01, 14)],
)
def test_fewest_items_for_an_error_and_a_probability(factors: int, eps: float, delta: float, count: int) -> None:
    """So many items are enough and two fewer are not; the second bound leaves 2.5 standard errors."""
    draw = np.random.default_rng(count)
    failed = []
    for items in (count - 2, count):
        values = draw.uniform(-1, 1, (factors, 8000, items)).prod(axis=0)
        failed.append((solve(values, draw.uniform(-1, 1, 8000)).error > eps).mean())
    assert failed[0] > delta
    assert failed[1] < delta + 2.5 * (delta / 8000) ** 0.5


def test_a_matrix_of_targets() -> None:
    """Single entries can be out of reach, so the median counts and not the largest error."""
    items, targets = products(4, 64 * 64, 16)
    found = solve(items.reshape(64, 64, 16), targets.reshape(64, 64))
    assert np.median(found.error) == pytest.approx(1.8e-5, rel=0.3)
    assert found.error.max() > 0.1


def test_bad_items_are_refused() -> None:
    with pytest.raises(OptionError, match=r"31 items have 2 \*\* 31 subsets; the exact solver takes at most 30 items"):
        solve(np.ones((2, 31)), np.ones(2))
    assert greedy(np.ones((2, 31)), np.full(2, 7.0)).error.tolist() == [0.0, 0.0]
    with pytest.raises(OptionError, match=r"Items of shape \(2, 3\) and targets of shape \(3,\) do not fit"):
        solve(np.ones((2, 3)), np.ones(3))
    with pytest.raises(OptionError, match=r"items=array\(1.\) is a single number"):
        solve(np.array(1.0), np.array(1.0))
    for items, target in (([1.0, np.nan], 1.0), ([1.0, 2.0], np.inf), ([1e308, 1e308], 1.0)):
        with pytest.raises(OptionError, match=r"number \(1,\) hold NaN or infinity, or have a sum that is too large"):
            solve(np.array([[0.0, 1.0], items]), np.array([0.0, target]))
