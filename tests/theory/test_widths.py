import math

import numpy as np
import pytest

from ks_lottery.errors import OptionError
from ks_lottery.theory.constructions import Malach, Orseau
from ks_lottery.theory.widths import (
    entry_eps,
    malach_items,
    network_widths,
    orseau_items,
    orseau_levels,
    same_sign_units,
)


@pytest.mark.parametrize("largest", [0.3, 0.7, 1.0])
def test_one_of_so_many_pairs_is_close(largest: float) -> None:
    """The worst target fails as often as was allowed, and no more: the chance of a pair is exact."""
    count = malach_items(1, 0.1, 0.2, largest)
    draw = np.random.default_rng(0)
    items = draw.random((4000, count)) * draw.uniform(-1, 1, (4000, count))
    mask = Malach().choose(items, np.full(4000, largest))
    failed = (np.abs((items * mask).sum(axis=1) - largest) > 0.1).mean()
    assert 0.15 < failed < 0.22
    assert malach_items(1, 0.01, 0.2) / malach_items(1, 0.02, 0.2) == pytest.approx(4, rel=0.02)


@pytest.mark.parametrize(("eps", "largest"), [(0.1, 1.0), (0.003, 0.5)])
def test_greedy_sums_of_log_uniform_products_are_close(eps: float, largest: float) -> None:
    count = orseau_items(1, eps, 0.1, largest)
    draw = np.random.default_rng(0)
    law = Orseau(eps, largest)
    items = np.abs(law.draw(draw, (1000, count), 0)) * law.draw(draw, (1000, count), 1)
    targets = draw.uniform(-largest, largest, 1000)
    mask = law.choose(items, targets)
    assert (np.abs((items * mask).sum(axis=1) - targets) > eps).mean() <= 0.1


def test_each_interval_holds_a_product_with_the_same_chance() -> None:
    law = Orseau(0.01)
    levels = orseau_levels(0.01)
    draw = np.random.default_rng(1)
    sizes = np.abs(law.draw(draw, (100_000, 1), 0) * law.draw(draw, (100_000, 1), 1))
    edges = 1.5 ** -np.arange(levels + 1, 0, -1)
    shares = np.histogram(sizes, edges)[0] / 100_000
    assert len(shares) == levels
    assert shares == pytest.approx(1 / (levels + 2), rel=0.06)


def test_levels_lead_down_to_the_error() -> None:
    assert orseau_levels(1 / 1.5**7) == 7
    assert orseau_levels(0.5, 0.1) == 1
    assert orseau_levels(1e-3) == math.ceil(math.log(1000) / math.log(1.5))


def test_so_many_units_have_enough_of_both_signs() -> None:
    units = same_sign_units(10, 3, 0.05)
    positive = (np.random.default_rng(0).random((20000, 3, units)) < 0.5).sum(axis=2)
    assert ((positive >= 10) & (units - positive >= 10)).all(axis=1).mean() >= 0.95
    fewer = (np.random.default_rng(0).random((20000, 3, units - 1)) < 0.5).sum(axis=2)
    assert ((fewer >= 10) & (units - 1 - fewer >= 10)).all(axis=1).mean() < 0.96
    assert same_sign_units(1, 1, 0.5) == 2


def test_widths_order_as_the_papers_say() -> None:
    shapes = [(6, 4), (2, 6)]
    widths = {name: network_widths(name, shapes, 0.01, 0.01, 0.5) for name in ("malach", "orseau", "pensia")}
    assert [widths["pensia"][0] < widths["orseau"][0] < widths["malach"][0]] == [True]
    assert all(first * 6 == second * 4 for first, second in widths.values())
    assert entry_eps([(3, 3)], 0.3) == pytest.approx(0.1)


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(OptionError, match="largest=1.5 must lie above 0 and not above 1. Scale the target"):
        malach_items(1, 0.1, 0.1, 1.5)
    with pytest.raises(OptionError, match="weights=0 must be at least 1"):
        orseau_items(0, 0.1, 0.1)
    with pytest.raises(OptionError, match="delta=0.0 must lie between 0 and 1"):
        same_sign_units(1, 1, 0.0)
    with pytest.raises(OptionError, match="eps=0.0 must be a finite number above 0"):
        entry_eps([(1, 1)], 0.0)
    with pytest.raises(OptionError, match="construction='pensa' is unknown. Choose malach, orseau or pensia"):
        network_widths("pensa", [(1, 1)], 0.1, 0.1)  # type: ignore[arg-type]
