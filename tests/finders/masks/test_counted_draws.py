"""Draws by counting: whole numbers alone, uniform, and independent of each other."""

import numpy as np
import pytest
import torch
from scipy import stats

from ks_lottery.finders.masks.counted_draws import CountedDraws, hash_anywhere


def test_they_are_a_function_of_seed_step_and_unit() -> None:
    draws = CountedDraws(100_000, 3)
    assert torch.equal(draws.at(5), CountedDraws(100_000, 3).at(5))
    assert torch.equal(draws.at(5)[:70_000], CountedDraws(70_000, 3).at(5))
    assert not torch.equal(draws.at(5), draws.at(6))
    assert not torch.equal(draws.at(5), CountedDraws(100_000, 4).at(5))


def test_they_are_the_hash_in_whole_numbers_of_any_size() -> None:
    """Nothing overflows and nothing rounds, so that every machine and device has the same draws."""
    before, after = (int(word) for word in np.random.SeedSequence([3, 5]).generate_state(2, np.uint32))
    draws = CountedDraws(100_000, 3).at(5)
    for unit in (0, 1, 65_535, 65_536, 99_999):
        word = unit ^ before
        for shift, factor in ((17, 0x7FEB352D), (11, 0x21F0AAAD), (15, 0x31848BAB)):
            word = ((word ^ (word >> shift)) * factor) % 2**32
        assert float(draws[unit]) == ((word ^ (word >> 14) ^ after) >> 8) / 2**24


def test_they_are_uniform_from_0_to_below_1() -> None:
    draws = CountedDraws(1_000_000, 0).at(0)
    assert draws.dtype == torch.float32
    assert 0.0 <= float(draws.min()) < 1e-4
    assert 1 - 1e-4 < float(draws.max()) < 1.0
    counts = torch.histc(draws, 1024, 0, 1).numpy()
    assert 1e-3 < stats.chisquare(counts).pvalue < 1 - 1e-3


@pytest.mark.parametrize("distance", [1, 2, 64, 1024, 4096, 65_536, 2**18])
def test_units_are_independent_of_each_other(distance: int) -> None:
    draws = CountedDraws(1_000_000, 0).at(1).numpy()
    independent(draws[:-distance], draws[distance:])


def test_steps_and_seeds_are_independent_of_each_other() -> None:
    draws = CountedDraws(1_000_000, 0).at(1).numpy()
    independent(draws, CountedDraws(1_000_000, 0).at(2).numpy())
    independent(draws, CountedDraws(1_000_000, 1).at(1).numpy())


def independent(one: np.ndarray, other: np.ndarray) -> None:
    cells = (one * 32).astype(int) * 32 + (other * 32).astype(int)
    assert stats.chisquare(np.bincount(cells, minlength=1024)).pvalue > 1e-4


@pytest.mark.parametrize("count", [1, 32_768, 100_000])
def test_other_devices_have_the_same(count: int) -> None:
    before, after = np.random.SeedSequence([3, 5]).generate_state(2, np.uint32)
    draws = torch.empty(count)
    hash_anywhere(draws, int(before), int(after))
    assert torch.equal(draws, CountedDraws(count, 3).at(5))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_has_the_same() -> None:
    assert torch.equal(CountedDraws(100_000, 3, "cuda").at(5).cpu(), CountedDraws(100_000, 3).at(5))
