"""What is planted computes what the target computes, lies where the masks say, and is well hidden."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ks_lottery.errors import UnitError
from ks_lottery.theory.planted_targets import TARGETS
from ks_lottery.theory.planting import Planted, parameters, plant
from ks_lottery.theory.relu_network import ReluNetwork, mother_network


def planted(name: str, depth: int = 3, width: int = 100, seed: int = 0) -> Planted:
    target = TARGETS[name]
    widths = (target.inputs, *[width] * (depth - 1), target.outputs)
    return plant(target.network(depth), mother_network(widths, np.random.default_rng(seed)))


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize(("depth", "width"), [(3, 100), (3, 30), (5, 100), (10, 40)])
def test_the_planted_network_is_the_target(name: str, depth: int, width: int) -> None:
    found = planted(name, depth, width)
    x, _ = TARGETS[name].data(2000, np.random.default_rng(1))
    wanted = found.target(x)
    assert np.abs(found.ticket_network()(x) - wanted).max() <= 1e-12 * max(1.0, np.abs(wanted).max())
    assert np.square(found.host(x) - wanted).mean() > 2.0  # the mother computes something else


def test_the_helix_is_small_and_well_hidden() -> None:
    found = planted("helix")
    assert found.count == 125
    assert 0.010 <= found.density <= 0.013
    hidden = [(np.abs(values), mask) for name, values, mask in parameters(found) if name != "layers.0.bias"]
    sizes = np.concatenate([size.reshape(-1) for size, _ in hidden])
    truth = np.concatenate([mask.reshape(-1) for _, mask in hidden])
    largest = np.argsort(-sizes, kind="stable")[: truth.sum()]
    assert truth[largest].mean() <= 0.5  # most of what is found is the first layer, which is large in every mother


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), depth=st.integers(3, 6), width=st.integers(30, 60), name=st.sampled_from([*TARGETS]))
def test_any_mother_holds_the_target(seed: int, depth: int, width: int, name: str) -> None:
    found = planted(name, depth, width, seed)
    x, _ = TARGETS[name].data(64, np.random.default_rng(seed))
    wanted = found.target(x)
    assert np.abs(found.ticket_network()(x) - wanted).max() <= 1e-11 * max(1.0, np.abs(wanted).max())
    assert found.count == sum(np.count_nonzero(values) for values in (*found.target.weights, *found.target.biases))


def test_everything_else_stays_as_it_was_and_a_seed_plants_the_same() -> None:
    mother = mother_network((1, 50, 50, 3), np.random.default_rng(4))
    found, again = (plant(TARGETS["helix"].network(3), mother) for _ in range(2))
    for layer in range(3):
        np.testing.assert_array_equal(
            found.host.weights[layer][~found.weights[layer]], mother.weights[layer][~found.weights[layer]]
        )
        np.testing.assert_array_equal(
            found.host.biases[layer][~found.biases[layer]], mother.biases[layer][~found.biases[layer]]
        )
        np.testing.assert_array_equal(found.host.weights[layer], again.host.weights[layer])
    assert [name for name, *_ in parameters(found)][:2] == ["layers.0.weight", "layers.0.bias"]


def test_a_neuron_goes_where_it_changes_least() -> None:
    mother = ReluNetwork(
        (np.array([[3.0, -1.0], [-1.0, -1.0], [1.0, 2.0]]), np.ones((1, 3))), (np.zeros(3), np.zeros(1)), np.ones(1)
    )
    target = ReluNetwork((np.array([[2.0, 4.1]]), np.array([[1.0]])), (np.zeros(1), np.zeros(1)), np.ones(1))
    found = plant(target, mother)
    assert found.weights[0].nonzero()[0].tolist() == [2, 2]
    factor = (2.0 + 2 * 4.1) / 5
    np.testing.assert_allclose(found.host.weights[0][2], [2.0 / factor, 4.1 / factor])
    assert found.host.scale[0] == pytest.approx(factor)


def test_no_neuron_of_the_right_sign_and_a_neuron_without_parameters() -> None:
    mother = ReluNetwork(
        (np.array([[-1.0], [-2.0]]), np.ones((1, 2))), (np.zeros(2), np.zeros(1)), np.ones(1)
    )  # fmt: skip
    target = ReluNetwork((np.array([[3.0], [0.0]]), np.array([[1.0, 0.0]])), (np.zeros(2), np.zeros(1)), np.ones(1))
    found = plant(target, mother)
    assert found.host.weights[0].tolist() == [[1.0], [-2.0]]
    assert found.count == 2
    x = np.linspace(-1, 1, 9)[:, None]
    np.testing.assert_allclose(found.ticket_network()(x), target(x), rtol=0, atol=1e-15)


def test_targets_that_do_not_fit() -> None:
    target = TARGETS["helix"].network(3)
    with pytest.raises(UnitError, match=r"Layer 1 of the target has 29 neurons, but the mother network's has 20"):
        plant(target, mother_network((1, 20, 20, 3), np.random.default_rng(0)))
    with pytest.raises(UnitError, match=r"cannot be planted in a mother network of widths \[1, 40, 3\]"):
        plant(target, mother_network((1, 40, 3), np.random.default_rng(0)))


def test_networks_that_are_none() -> None:
    with pytest.raises(UnitError, match="give inputs and outputs of at least one layer"):
        mother_network((3,), np.random.default_rng(0))
    with pytest.raises(UnitError, match=r"A network has weights of shapes \[\(2, 3\)\]"):
        ReluNetwork((np.ones((2, 3)),), (np.ones(3),), np.ones(2))
    with pytest.raises(UnitError, match="NaN or infinite"):
        ReluNetwork((np.full((2, 3), np.nan),), (np.ones(2),), np.ones(2))


def test_mothers_are_he_scaled_and_their_biases_fall_with_depth() -> None:
    mother = mother_network((50, 400, 400, 400), np.random.default_rng(0))
    for weight, inputs in zip(mother.weights, (50, 400, 400), strict=True):
        assert weight.std() == pytest.approx((2 / inputs) ** 0.5, rel=0.05)
    spreads = np.cumprod([(2 / inputs) ** 0.5 for inputs in (50, 400, 400)])
    for bias, spread in zip(mother.biases, spreads, strict=True):
        assert bias.std() == pytest.approx(spread, rel=0.15)
