"""The targets are the functions that they are called after, at every depth."""

import numpy as np
import pytest

from ks_lottery.errors import OptionError
from ks_lottery.theory.planted_targets import TARGETS


@pytest.mark.parametrize("depth", [3, 4, 7])
def test_the_ramp_is_exact(depth: int) -> None:
    x = np.linspace(-1, 1, 101)[:, None]
    np.testing.assert_array_equal(TARGETS["relu"].network(depth)(x), np.maximum(x, 0))
    assert TARGETS["relu"].network(depth).num_parameters == 2 * depth


@pytest.mark.parametrize("depth", [3, 4, 7])
def test_the_helix_is_exact_at_its_knots_and_near_between_them(depth: int) -> None:
    knots = np.linspace(-1, 1, 30)[:, None]
    network, truth = TARGETS["helix"].network(depth), TARGETS["helix"].truth
    np.testing.assert_allclose(network(knots), truth(knots), rtol=0, atol=1e-13)
    x = np.linspace(-1, 1, 999)[:, None]
    bound = (3 * np.pi) ** 2 * (2 + 8 * np.pi) / (8 * np.pi) * (2 / 29) ** 2 / 8  # largest |f''| h^2 / 8
    assert np.abs(network(x) - truth(x)).max() <= bound
    assert network.widths == (1, 29, *[3] * (depth - 1))


@pytest.mark.parametrize("depth", [3, 4, 7])
def test_the_circles_are_told_apart_but_for_a_narrow_rim(depth: int) -> None:
    x, labels = TARGETS["circle"].data(20_000, np.random.default_rng(0))
    clean = TARGETS["circle"].truth(x)
    assert 0.005 < np.mean(labels != clean) < 0.015
    assert set(np.unique((labels - clean)[labels != clean]) % 4) == {1}
    chosen = TARGETS["circle"].network(depth)(x).argmax(axis=1)
    rim = np.abs(np.square(x).sum(axis=1)[:, None] - [0.2, 0.5, 0.7]).min(axis=1) < 2 * (2**0.5 / 9) ** 2 / 4
    assert np.array_equal(chosen[~rim], clean[~rim])
    assert np.mean(chosen != clean) < 0.02


def test_noise_of_numbers() -> None:
    x, labels = TARGETS["helix"].data(5000, np.random.default_rng(0))
    noise = labels - TARGETS["helix"].truth(x)
    assert noise.std() == pytest.approx(0.01, rel=0.05)
    assert np.abs(x).max() <= 1


@pytest.mark.parametrize("name", TARGETS)
def test_too_few_layers_and_no_examples(name: str) -> None:
    with pytest.raises(OptionError, match="depth=2: a target takes at least 3 layers"):
        TARGETS[name].network(2)
    with pytest.raises(OptionError, match=r"data\(count=0\)"):
        TARGETS[name].data(0, np.random.default_rng(0))
