"""Masks of random networks compute the networks that they claim, as well as the widths promise."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ks_lottery.errors import OptionError
from ks_lottery.theory.bounds import copied_items, subset_sum_items
from ks_lottery.theory.constructions import Malach, Orseau, Pensia
from ks_lottery.theory.strong_ticket import StrongTicket, network_outputs, strong_ticket
from ks_lottery.theory.widths import entry_eps, network_widths, same_sign_units

SHAPES = [(5, 3), (2, 5)]


def target(shapes: list[tuple[int, int]], largest: float = 0.5, seed: int = 0) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    weights = [draw.uniform(-1, 1, shape) for shape in shapes]
    return [weight / max(np.linalg.norm(weight, 2), np.abs(weight).max() / largest) for weight in weights]


def by_torch(ticket: StrongTicket, inputs: np.ndarray) -> np.ndarray:
    """Stock layers that hold the masked source."""
    stack: list[torch.nn.Module] = []
    for layer in ticket.layers:
        for weight, mask in ((layer.first, layer.first_mask), (layer.second, layer.second_mask)):
            linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.float64)
            linear.weight.data = torch.from_numpy(weight * mask)
            stack += [linear, torch.nn.ReLU()]
    with torch.no_grad():
        return torch.nn.Sequential(*stack[:-1])(torch.from_numpy(inputs)).numpy()


@pytest.mark.parametrize("construction", [Malach(), Orseau(0.01, 0.5), Pensia()])
@given(seed=st.integers(0, 2**32), units=st.integers(2, 12))
@settings(max_examples=20, deadline=None)
def test_the_masked_source_computes_the_products(construction: Malach | Orseau | Pensia, seed: int, units: int) -> None:
    ticket = strong_ticket(target(SHAPES), construction, [3 * units + 1, 5 * units], seed, 0.8)
    inputs = np.random.default_rng(seed).normal(size=(20, 3))
    hidden = inputs
    for number, layer in enumerate(ticket.layers):
        positive, negative = layer.products()
        hidden = np.maximum(hidden, 0) @ positive.T + np.minimum(hidden, 0) @ negative.T
        hidden = hidden if number else np.maximum(hidden, 0)
    assert ticket.outputs(inputs) == pytest.approx(hidden, abs=1e-12)
    assert ticket.outputs(inputs) == pytest.approx(by_torch(ticket, inputs), abs=1e-12)
    assert ticket.sampled_error(100) <= ticket.error_bound() + 1e-12
    for layer in ticket.layers:
        assert layer.first_mask.sum(axis=1).max() <= 1
        assert not (layer.first == 0)[layer.first_mask].any()
        assert not (layer.second == 0)[layer.second_mask].any()


@pytest.mark.parametrize("name", ["malach", "orseau", "pensia"])
@pytest.mark.parametrize("eps", [0.3, 0.1])
def test_the_promised_width_is_enough(name: str, eps: float) -> None:
    """Of 20 draws at most four fail where one in ten may: 1.1 % of all honest promises would fail this test."""
    weights = target(SHAPES)
    construction = {"malach": Malach(), "orseau": Orseau(entry_eps(SHAPES, eps), 0.5), "pensia": Pensia()}[name]
    widths = network_widths(construction.name, SHAPES, eps, 0.1, 0.5)
    draws = 20 if name != "pensia" else 2
    tickets = [strong_ticket(weights, construction, widths, seed) for seed in range(draws)]
    failed = sum(ticket.entry_error > entry_eps(SHAPES, eps) for ticket in tickets)
    assert failed <= draws // 5
    assert sum(ticket.sampled_error(200) > eps for ticket in tickets) <= failed


def test_the_error_falls_with_width_as_the_sums_do() -> None:
    """At equal width: one product is coarse, a greedy sum finer, the best sum exact."""
    weights = target([(4, 4)])
    medians = {
        construction.name: [
            np.median([strong_ticket(weights, construction, [4 * units], seed).entry_error for seed in range(7)])
            for units in (10, 40)
        ]
        for construction in (Malach(), Orseau(0.01, 0.5), Pensia())
    }
    assert medians["pensia"][1] < medians["pensia"][0] / 100
    assert medians["pensia"][1] < min(medians["orseau"][1], medians["malach"][1]) / 50
    assert medians["malach"][1] > medians["malach"][0] / 50


def test_a_sparse_source_of_the_promised_width_holds_the_target() -> None:
    """Half of the source's weights are missing, so three quarters of the products are."""
    eps, delta, density = 0.05, 0.2, 0.5
    weights = target([(2, 2)])
    items = subset_sum_items(eps, delta / 3 / 8)
    copied = copied_items(items, 8, density**2, delta / 3)
    wide = 2 * same_sign_units(copied, 2, delta / 3)
    narrow = 2 * same_sign_units(items, 2, delta / 3)
    assert copied > 20 * items

    def share_found(width: int, density: float) -> float:
        errors = [strong_ticket(weights, Pensia(), [width], seed, density).entry_error for seed in range(10)]
        return float(np.mean(np.array(errors) <= eps))

    assert share_found(wide, density) >= 1 - delta
    assert share_found(narrow, 1.0) >= 1 - delta
    assert share_found(narrow // 4, density) < 0.5


def test_an_exact_copy_is_found() -> None:
    """A source whose products hit the target once leaves no error, and the mask holds two pairs per weight."""

    class Ones(Pensia):
        def draw(self, generator: np.random.Generator, shape: tuple[int, int], layer: int) -> np.ndarray:
            return np.where(np.arange(shape[0])[:, None] % 2, -1.0, 1.0) * np.ones(shape) if not layer else (
                np.where(np.arange(shape[1]) % 2, -0.5, 0.5) * np.ones(shape)
            )  # fmt: skip

    weights = [np.full((2, 2), 0.5)]
    ticket = strong_ticket(weights, Ones(), [4], 0)
    assert ticket.entry_error == 0.0
    assert ticket.sampled_error() < 1e-15
    assert ticket.density == (4 + 8) / (8 + 8)
    assert np.array_equal(network_outputs(weights, np.array([1.0, -3.0])), [-1.0, -1.0])


def test_the_same_seed_gives_the_same_ticket() -> None:
    one, same, other = (strong_ticket(target(SHAPES), Pensia(), [30, 50], seed) for seed in (1, 1, 2))
    for mine, its in zip(one.layers, same.layers, strict=True):
        assert np.array_equal(mine.first, its.first)
        assert np.array_equal(mine.second_mask, its.second_mask)
    assert not np.array_equal(one.layers[0].first, other.layers[0].first)


def test_wrong_targets_and_sources_are_refused() -> None:
    weights = target(SHAPES)
    asked = network_widths("pensia", SHAPES, 0.1, 0.1, 0.5)
    with pytest.raises(
        OptionError, match="wider than the source: layer 1 has 5 inputs, and the random layer"
    ) as caught:
        strong_ticket(weights, Pensia(), [6, 9], 0)
    assert f"wants widths {asked}" in str(caught.value)
    assert strong_ticket(weights, Pensia(), asked, 0).sampled_error() <= 0.1
    with pytest.raises(OptionError, match="1 widths for 2 layers of the target"):
        strong_ticket(weights, Pensia(), [6], 0)
    with pytest.raises(OptionError, match=r"shapes \[\(5, 3\), \(2, 4\)\]: inputs of one are not the outputs"):
        strong_ticket([weights[0], np.ones((2, 4))], Pensia(), [6, 10], 0)
    for wrong in ([], [np.ones(3)], [np.ones((0, 3))]):
        with pytest.raises(OptionError, match=r"Give one or more matrices \[outputs, inputs\]"):
            strong_ticket(wrong, Pensia(), [6], 0)
    for value in (1.5, np.nan, np.inf):
        with pytest.raises(OptionError, match=r"largest weights of the target's layers are \[.*\]; constructions hold"):
            strong_ticket([np.full((1, 1), value)], Pensia(), [6], 0)
    for density in (0.0, 1.1, np.nan):
        with pytest.raises(OptionError, match="source_density=.* must lie above 0 and not above 1"):
            strong_ticket(weights, Pensia(), [6, 10], 0, density)
    with pytest.raises(OptionError, match="eps=0.0 must lie between 0 and 1"):
        Orseau(0.0)
