import numpy as np
import pytest

from ks_lottery.errors import OptionError
from ks_lottery.theory.universal import (
    Curve,
    curve_ticket,
    monomial_ticket,
    readout_r2,
    sine_curve,
)

PLACES = np.linspace(0, 1, 1000)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_sine_in_a_random_network(seed: int) -> None:
    ticket = curve_ticket([sine_curve(knots=21)], 250, seed)
    error = np.abs(ticket.features(PLACES)[:, 0] - np.sin(2 * np.pi * PLACES)).max()
    assert error <= 0.15
    assert error == pytest.approx(0.0122, abs=1e-3)
    assert ticket.kept / ticket.size <= 0.05
    assert ticket.size == 250 + 250 + 250 * 250 + 250 + 250 + 1


def test_the_ticket_is_the_piecewise_linear_function() -> None:
    curve = Curve(np.array([0.0, 0.5, 2.0, 3.0]), np.array([1.0, -2.0, 2.0, 2.0]))
    places = np.linspace(0, 3, 301)
    ticket = curve_ticket([curve], 200, 0)
    assert ticket.features(places)[:, 0] == pytest.approx(np.interp(places, *curve), abs=1e-3)
    assert ticket.features(np.array([[4.0]]))[0, 0, 0] == pytest.approx(2.0, abs=1e-2)
    dropped = np.where(ticket.masks[2], 0.0, ticket.weights[2])
    assert np.abs(dropped).min(where=~ticket.masks[2], initial=9) > 0
    assert not (ticket.masks[0][:, 0] & ticket.bias_mask).any()


def test_one_ticket_serves_trigonometric_sums() -> None:
    curves = [sine_curve(frequency, phase) for frequency in (1, 2) for phase in (0.0, 0.25)]
    features = curve_ticket(curves, 300, 0).features(PLACES)
    draw = np.random.default_rng(0)
    waves = np.stack([f(2 * np.pi * k * PLACES) for k in (1, 2) for f in (np.sin, np.cos)], axis=1)
    for _ in range(5):
        task = waves @ draw.normal(size=4)
        assert readout_r2(features, task) > 0.99
        assert readout_r2(PLACES[:, None], task) < 0.9


def test_one_ticket_serves_polynomials() -> None:
    ticket = monomial_ticket(3, 2, 0)
    assert sorted(ticket.powers.tolist()) == [[0, 1], [0, 2], [0, 3], [1, 0], [1, 1], [1, 2], [2, 0], [2, 1], [3, 0]]
    draw = np.random.default_rng(1)
    inputs = draw.random((500, 2))
    features = ticket.features(inputs)
    monomials = np.prod(inputs[:, None, :] ** ticket.powers, axis=-1)
    assert np.abs(features - monomials).max() < 0.02
    assert ticket.density < 0.05
    for _ in range(5):
        task = monomials @ draw.normal(size=9)
        assert readout_r2(features, task) > 0.99
        assert readout_r2(features, task) > readout_r2(inputs, task)


def test_the_best_readout() -> None:
    draw = np.random.default_rng(0)
    features, noise = draw.normal(size=(50, 3)), draw.normal(size=50)
    assert readout_r2(features, features @ [1.0, 2.0, 3.0] + 4.0) == pytest.approx(1.0)
    assert 0 <= readout_r2(features, noise) < 0.4


def test_a_source_that_is_too_narrow_is_refused() -> None:
    with pytest.raises(
        OptionError, match="they need 24 units that hand on x and 24 that are constant, and the draw of"
    ) as e:
        curve_ticket([sine_curve()], 60, 0)
    width = int(str(e.value).split("wider one: ")[1].split()[0])
    assert curve_ticket([sine_curve()], width, 0).features(np.array(0.25)) == pytest.approx(1.0, abs=0.02)
    with pytest.raises(OptionError, match="hinges with weights of one sign"):
        curve_ticket([sine_curve(knots=201)], 100, 0, items=10)
    with pytest.raises(OptionError, match="hinges that large weights of the output carry"):
        curve_ticket([sine_curve(4, phase, 31) for phase in (0.0, 0.25)], 150, 1)


def test_wrong_curves_are_refused() -> None:
    for knots in ([0.5, 1.0], [0.0], [0.0, 1.0, 1.0], [0.0, np.nan]):
        with pytest.raises(OptionError, match=r"A curve has the knots .* Give two or more, increasing from 0"):
            curve_ticket([Curve(np.array(knots), np.ones(len(knots)))], 200, 0)
    with pytest.raises(OptionError, match="degree=0 and inputs=2 must be at least 1"):
        monomial_ticket(0, 2, 0)
