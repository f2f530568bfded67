"""Freeze patterns: exact counts, and the same units from the same seed for ever."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ks_lottery.errors import OptionError
from ks_lottery.ticket.freeze_pattern import FREE, LOCKED, PRUNED, FreezePattern, FrozenCounts, _smallest


def pattern(seed: int = 0, **counts: tuple[int, int, int]) -> FreezePattern:
    return FreezePattern(seed, {name: FrozenCounts(*numbers) for name, numbers in counts.items()})


@given(frozen=st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 60)), seed=st.integers(0, 2**80))
@settings(max_examples=60, deadline=None)
def test_every_group_has_exactly_its_counts(frozen: tuple[int, int, int], seed: int) -> None:
    pruned, locked, free = frozen
    drawn = pattern(seed, group=(sum(frozen), pruned, locked)).of_group("group")
    assert drawn.dtype == np.int8
    assert [int((drawn == value).sum()) for value in (PRUNED, LOCKED, FREE)] == [pruned, locked, free]


def test_the_same_seed_gives_the_same_bytes_on_every_rebuild() -> None:
    one = pattern(7, a=(1000, 490, 210), b=(1000, 490, 210)).of_group("a")
    assert pattern(7, a=(1000, 490, 210)).of_group("a").tobytes() == one.tobytes()
    # Of stored tickets nothing but the seed remains: were this to change, none of them could be read.
    assert hashlib.sha256(one.tobytes()).hexdigest()[:16] == "2aa5c9ac0d4e2f3c"


def test_seeds_and_names_draw_independently() -> None:
    counts = (10_000, 3000, 2000)
    one, other = pattern(0, a=counts, b=counts), pattern(1, a=counts)
    for second in (one.of_group("b"), other.of_group("a")):
        first = one.of_group("a")
        # Both locked: 2000 * 2000 / 10000 on average, with a standard deviation of 16.
        assert ((first == LOCKED) & (second == LOCKED)).sum() == pytest.approx(400, abs=80)


def test_every_unit_has_the_same_chance() -> None:
    drawn = np.stack([pattern(seed, a=(50, 10, 20)).of_group("a") for seed in range(2000)])
    assert (drawn == PRUNED).mean(axis=0) == pytest.approx(np.full(50, 0.2), abs=0.05)
    assert (drawn == LOCKED).mean(axis=0) == pytest.approx(np.full(50, 0.4), abs=0.06)


def test_the_pruned_units_are_the_same_with_more_locked_ones() -> None:
    few, many = (pattern(3, a=(500, 100, locked)).of_group("a") for locked in (50, 300))
    assert ((few == PRUNED) == (many == PRUNED)).all()
    assert (many[few == LOCKED] == LOCKED).all()


def test_of_equal_words_the_first_are_smallest() -> None:
    words = np.array([5, 1, 5, 5, 9], dtype=np.uint64)
    assert [_smallest(words, count).tolist().count(True) for count in range(6)] == list(range(6))
    assert np.flatnonzero(_smallest(words, 3)).tolist() == [0, 1, 2]


def test_it_counts_and_is_written_as_json() -> None:
    one = pattern(5, a=(100, 49, 21), b=(10, 0, 0))
    assert (one.units, one.free, one.locked) == (110, 40, 21)
    assert (one.of_group("b") == FREE).all()
    assert FreezePattern.from_dict(one.to_dict()) == one


@pytest.mark.parametrize("numbers", [(-1, 0, 0), (10, True, 0), (10, 2.0, 0), (10, 0, -3), (2**50, 0, 0)])
def test_counts_that_are_none_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(OptionError, match="each must be a whole number from 0 to"):
        FrozenCounts(*numbers)


def test_more_frozen_units_than_there_are_are_refused() -> None:
    with pytest.raises(OptionError, match="11 of 10 units would be frozen"):
        FrozenCounts(10, 6, 5)


def test_a_pattern_without_a_free_unit_is_refused() -> None:
    with pytest.raises(OptionError, match="all 10 units are frozen, so there is nothing to search"):
        pattern(0, a=(10, 6, 4))


@pytest.mark.parametrize("seed", [-1, 1.5, "1", True])
def test_a_seed_that_is_none_is_refused(seed: int) -> None:
    with pytest.raises(OptionError, match=r"FreezePattern\(seed=.*must be a whole number of 0 or more"):
        pattern(seed, a=(10, 5, 4))
