import numpy as np
import pytest

from ks_lottery.errors import OptionError
from ks_lottery.finders.draws.width import candidate_copies, width_factor


@pytest.mark.parametrize(("density", "copies"), [(0.1, 68), (0.3, 21), (0.5, 11), (0.9, 4)])
def test_so_many_copies_hold_a_target_of_64_edges(density: float, copies: int) -> None:
    assert candidate_copies(64, density, delta=0.05) == copies
    present = np.random.default_rng(0).random((2000, 64, copies), dtype=np.float32) < density
    assert 0.94 < present.any(axis=2).all(axis=1).mean() <= 0.995
    fewer = present[:, :, : copies // 2].any(axis=2).all(axis=1).mean()
    assert fewer < 0.6


def test_the_factor_grows_as_density_falls() -> None:
    assert width_factor(1 - np.exp(-1)) == pytest.approx(1.0)
    assert width_factor(0.001) == pytest.approx(999.5, rel=1e-4)
    assert candidate_copies(1, 0.99) == 1


def test_wrong_options_are_refused() -> None:
    for density in (0.0, 1.0, float("nan")):
        with pytest.raises(OptionError, match="density=.* must lie between 0 and 1"):
            width_factor(density)
    with pytest.raises(OptionError, match=r"edges=0, delta=0.05: edges must be at least 1 and delta between 0 and 1"):
        candidate_copies(0, 0.5)
    with pytest.raises(OptionError, match=r"edges=4, delta=1.0: edges must be at least 1"):
        candidate_copies(4, 0.5, delta=1.0)
