import math

import numpy as np
import pytest

from ks_lottery.errors import OptionError
from ks_lottery.theory.bounds import (
    PRODUCTS,
    UNIFORMS,
    attention_block_widths,
    attention_qk_width,
    attention_vo_width,
    copied_items,
    subset_sum_items,
    transformer_first_eps,
)
from ks_lottery.theory.subset_sum import solve


def test_items_grow_with_the_logarithm() -> None:
    assert subset_sum_items(math.exp(-10), 0.5, constant=1.0) == 10
    assert subset_sum_items(0.5, math.exp(-10), constant=2.0) == 20
    assert subset_sum_items(0.01, 0.01) == 20


@pytest.mark.parametrize(("factors", "constant"), [(2, PRODUCTS), (1, UNIFORMS)])
def test_the_empirical_constants_are_enough(factors: int, constant: float) -> None:
    draw = np.random.default_rng(factors)
    items = draw.uniform(-1, 1, (factors, 6000, subset_sum_items(0.01, 0.01, constant))).prod(axis=0)
    assert (solve(items, draw.uniform(-1, 1, 6000)).error > 0.01).mean() <= 0.01


def test_widths_of_attention_are_those_of_the_theorems() -> None:
    d, heads, alpha, eps, c = 4, 2, 2.0, 0.01, 3.7
    assert attention_qk_width(d, heads, alpha, eps, c) == d * math.ceil(c * math.log(8 * 2 * 8 * 8 / 0.01)) == 172
    assert (
        attention_vo_width(d, d, heads, alpha, eps, c) == d * math.ceil(c * math.log(2 * 2 * 2 * 4 * 2 / 0.01)) == 132
    )
    assert attention_block_widths(d, heads, alpha, 3, eps, c) == (
        d * math.ceil(c * math.log(32 * 8 * 2 * 8 / 0.01)), d * math.ceil(c * math.log(24 * 2 * 3 * 2 * 32 / 0.01)),
    )  # fmt: skip
    assert attention_vo_width(4, 1, 1, 2.0, 1e9) == 4


def test_the_first_block_has_to_be_better_with_each_block() -> None:
    assert transformer_first_eps(1, 4, 2, 2.0, 0.01) == pytest.approx(0.01)
    beta2 = 2.0 * (4 * 2 * 2)
    beta3 = 2.0 * (4 * 2 * 2) ** 2
    assert transformer_first_eps(2, 4, 2, 2.0, 0.01) == pytest.approx(0.01 / (2 * 64 * beta2**2))
    assert transformer_first_eps(3, 4, 2, 2.0, 0.01) == pytest.approx(0.01 / (4 * 64 * beta2**2 * 64 * beta3**2))


def test_a_sparse_source_needs_copies_of_each_item() -> None:
    items = copied_items(16, 4, 0.5, 0.05)
    assert items == 16 * 11
    there = np.random.default_rng(0).random((4000, 64, items // 16)) < 0.5
    assert there.any(axis=2).all(axis=1).mean() >= 0.95


def test_wrong_numbers_are_refused() -> None:
    for wrong in (0.0, 1.0, float("nan")):
        with pytest.raises(OptionError, match="eps=.* must lie between 0 and 1"):
            subset_sum_items(wrong, 0.1)
        with pytest.raises(OptionError, match="delta=.* must lie between 0 and 1"):
            subset_sum_items(0.1, wrong)
    with pytest.raises(OptionError, match="constant=0.0 must be a finite number above 0"):
        subset_sum_items(0.1, 0.1, 0.0)
    with pytest.raises(OptionError, match="heads=0 must be at least 1"):
        attention_qk_width(4, 0, 2.0, 0.01)
    with pytest.raises(OptionError, match="eps=inf must be a finite number above 0"):
        attention_vo_width(4, 4, 1, 2.0, math.inf)
    with pytest.raises(OptionError, match=r"alpha=2.0: the theorem holds for tokens bounded by alpha >= sqrt\(9\) = 3"):
        attention_vo_width(4, 9, 1, 2.0, 0.01)
    with pytest.raises(OptionError, match="layers=0 must be at least 1"):
        attention_block_widths(4, 1, 2.0, 0, 0.01)
    with pytest.raises(OptionError, match="40 blocks of width 4 ask for an error of exp.* which no float holds"):
        transformer_first_eps(40, 4, 2, 2.0, 0.01)
    with pytest.raises(OptionError, match="items=0 must be at least 1"):
        copied_items(0, 1, 0.5, 0.1)
