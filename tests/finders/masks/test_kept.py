"""Masks of exactly so many of the largest numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ks_lottery.errors import OptionError, UnitError
from ks_lottery.finders.masks.kept import KeptUnits, LargestMask

NUMBERS = st.lists(st.integers(-4, 4).map(float) | st.floats(-1e3, 1e3, width=32), min_size=1, max_size=60)


def by_sorting(values: list[float], count: int) -> list[bool]:
    order = sorted(range(len(values)), key=lambda place: (-values[place], place))
    return [place in order[:count] for place in range(len(values))]


@given(NUMBERS, st.data())
def test_it_is_what_a_stable_sort_keeps(values: list[float], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(values)))
    assert LargestMask(count)(torch.tensor(values)).tolist() == by_sorting(values, count)


@given(NUMBERS, st.lists(st.sampled_from([0.0, 1e-4, 0.5, 100.0]), max_size=5), st.data())
def test_numbers_that_drift_or_jump_are_kept_as_exactly(
    values: list[float], moves: list[float], data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, len(values)))
    keep = LargestMask(count)
    generator = np.random.default_rng(0)
    for move in (0.0, *moves):
        values = (np.float32(values) + move * generator.standard_normal(len(values))).astype(np.float32).tolist()
        assert keep(torch.tensor(values)).tolist() == by_sorting(values, count)


def test_a_hundred_equal_numbers_keep_the_first() -> None:
    keep = LargestMask(30)
    for _ in range(2):
        assert keep(torch.zeros(100)).nonzero()[:, 0].tolist() == list(range(30))


@pytest.mark.parametrize(("scope", "counts"), [("global", [5]), ("group", [2, 3])])
def test_counts_of_groups_and_of_all(scope: str, counts: list[int]) -> None:
    keep = KeptUnits([4, 6], 0.5, scope)  # type: ignore[arg-type]
    assert keep.counts == counts
    values = torch.tensor([9.0, 8.0, 7.0, 6.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    expected = [1, 1, 1, 1, 0, 0, 0, 0, 0, 1] if scope == "global" else [1, 1, 0, 0, 0, 0, 0, 1, 1, 1]
    assert keep(values).int().tolist() == expected


@given(st.lists(st.integers(1, 40), min_size=1, max_size=9), st.floats(0.05, 0.95))
def test_the_shares_of_groups_add_up_to_that_of_all(sizes: list[int], density: float) -> None:
    wanted = round(density * sum(sizes))
    if not 0 < wanted < sum(sizes) or max(sizes) == 1:
        return
    counts = KeptUnits(sizes, density, "group").counts
    assert sum(counts) == wanted
    assert all(abs(count - density * size) < 1.5 for count, size in zip(counts, sizes, strict=True))


def test_groups_of_single_units_compete() -> None:
    assert KeptUnits([1, 1, 1, 1], 0.5, "group").counts == [2]


@pytest.mark.parametrize("density", [0.05, 0.95])
def test_masks_of_none_or_all_are_refused(density: float) -> None:
    with pytest.raises(OptionError, match=r"4 units keeps [04], and a mask of none or of all says nothing"):
        KeptUnits([2, 2], density, "group")


def test_nan_is_named() -> None:
    with pytest.raises(UnitError, match="score of unit 2 is NaN: the mask's training diverged"):
        LargestMask(1)(torch.tensor([0.0, 1.0, float("nan")]))
    keep = LargestMask(1)
    keep(torch.tensor([0.0, 1.0, 2.0]))
    with pytest.raises(UnitError, match="unit 1 is NaN"):
        keep(torch.tensor([0.0, float("nan"), float("nan")]))
