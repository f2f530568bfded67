"""The radix descent: the largest numbers that a sort finds, by the compiled kernels and by numpy's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ks_lottery.errors import UnitError
from ks_lottery.stats import topk, topk_compiled, topk_vectorised
from ks_lottery.stats.topk import Descent

SPECIAL = [0.0, -0.0, 1.0, -1.0, float("inf"), float("-inf"), 5e-324, -5e-324, 1.5, np.nextafter(1.5, 2)]


def chosen(groups: list[np.ndarray], masks: list[np.ndarray | None], k: int, compile_from: int) -> list[np.ndarray]:
    """The k largest by one of the two sets of kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topk, "_COMPILE_FROM", compile_from)
        descent = Descent(k)
        while not descent.settled:
            for number, (values, mask) in enumerate(zip(groups, masks, strict=True)):
                descent.count(values, mask, str(number))
            descent.narrow()
        left, places = descent.left, []
        for values, mask in zip(groups, masks, strict=True):
            here, tied = descent.above(values, mask, left)
            left -= tied
            places.append(here)
    return places


def sorted_first(groups: list[np.ndarray], masks: list[np.ndarray | None], k: int) -> list[list[int]]:
    """The same by sorting everything: number descending, then group, then position."""
    flat = np.concatenate([values.astype(np.float64) for values in groups])
    group = np.repeat(np.arange(len(groups)), [len(values) for values in groups])
    position = np.concatenate([np.arange(len(values)) for values in groups])
    allowed = np.concatenate(
        [np.ones(len(v), dtype=bool) if m is None else m for v, m in zip(groups, masks, strict=True)]
    )
    order = np.lexsort((position, group, -flat))
    first = order[allowed[order]][:k]
    return [np.sort(position[first][group[first] == number]).tolist() for number in range(len(groups))]


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[np.ndarray], list[np.ndarray | None], int]:
    """Groups of many sizes, scales and dtypes, with ties, infinities, zeros of both signs, and masks or none."""
    generator = np.random.default_rng(draw(st.integers(0, 2**31)))
    groups: list[np.ndarray] = []
    masks: list[np.ndarray | None] = []
    for _ in range(draw(st.integers(1, 6))):
        size = draw(st.sampled_from([0, 1, 2, 7, 100, 3000]))
        values = generator.normal(size=size) * 10.0 ** draw(st.integers(-5, 5))
        kind = draw(st.sampled_from(["continuous", "tied", "special", "narrow"]))
        if kind == "tied":
            values = np.round(np.tanh(values) * 2) / 2
        elif kind == "special":
            values = generator.choice(SPECIAL, size=size)
        elif kind == "narrow":
            values = 1 + values * 1e-13
        groups.append(values.astype(draw(st.sampled_from([np.float32, np.float64, np.float16]))))
        masks.append(draw(st.sampled_from([None, generator.random(size) < draw(st.sampled_from([0.0, 0.5, 1.0]))])))
    available = sum(len(v) if m is None else int(m.sum()) for v, m in zip(groups, masks, strict=True))
    return groups, masks, draw(st.integers(0, available))


@settings(max_examples=150, deadline=None)
@given(problems())
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_both_sets_of_kernels_choose_what_a_sort_puts_first(
    problem: tuple[list[np.ndarray], list[np.ndarray | None], int],
) -> None:
    groups, masks, k = problem
    if k == 0:
        return
    expected = sorted_first(groups, masks, k)
    before = [values.copy() for values in groups]
    for compile_from in (0, 2**62):
        found = chosen(groups, masks, k, compile_from)
        assert [places.tolist() for places in found] == expected
        assert all(places.dtype == np.int64 for places in found)
    assert all((a.view(np.uint8) == b.view(np.uint8)).all() for a, b in zip(groups, before, strict=True))


def test_numpy_takes_large_groups_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topk_vectorised, "_BLOCK", 97)
    values = np.round(np.random.default_rng(0).normal(size=1000), 1)
    assert [places.tolist() for places in chosen([values], [None], 333, 2**62)] == sorted_first([values], [None], 333)


def test_few_numbers_do_not_load_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    assert topk.kernels(2**16 - 1) is topk_vectorised
    assert topk.kernels(2**16) is topk_compiled
    monkeypatch.setattr(topk, "can_compile", lambda: False)
    assert topk.kernels(2**30) is topk_vectorised


def test_strided_numbers_and_masks() -> None:
    values = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)[:, 1]
    mask = np.tile([True, False], 50)[::2]
    assert mask.all()
    for compile_from in (0, 2**62):
        found = chosen([values], [mask], 20, compile_from)
        assert [places.tolist() for places in found] == sorted_first([values], [mask], 20)


@pytest.mark.parametrize("compile_from", [0, 2**62])
def test_nan_is_refused_where_it_takes_part(compile_from: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topk, "_COMPILE_FROM", compile_from)
    values = np.array([1.0, np.nan, 3.0, -np.nan], dtype=np.float32)
    with pytest.raises(UnitError, match=r"The score of unit 1 of group 'w' is NaN, which has no place in an order"):
        Descent(1).count(values, None, "w")
    with pytest.raises(UnitError, match="The score of unit 3 of group 'w' is NaN"):
        Descent(1).count(values, np.array([True, False, True, True]), "w")
    assert chosen([values], [np.array([True, False, True, False])], 1, compile_from)[0].tolist() == [2]


def test_what_is_inside_is_given_apart_from_what_is_above() -> None:
    values = np.random.default_rng(1).normal(size=5000)
    for compile_from in (0, 2**62):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(topk, "_COMPILE_FROM", compile_from)
            descent = Descent(500)
            descent.count(values, None, "w")
            descent.narrow()
            above, _ = descent.above(values, None)
            inside = descent.within(values, None)
        assert (len(inside), len(above) + descent.left) == (descent.inside, 500)
        assert values[above].min() > values[inside].max()
        assert not descent.settled


def test_too_few_numbers_are_counted_and_nothing_is_narrowed() -> None:
    descent = Descent(3)
    descent.count(np.array([1.0, 2.0, 3.0]), np.array([True, False, True]), "w")
    descent.narrow()
    assert (descent.total, descent.settled) == (2, False)
