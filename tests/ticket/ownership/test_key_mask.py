"""V1: a ticket in two parts that make the ticket again, and nothing else does."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ks_lottery.errors import OptionError, TicketError, UnitError
from ks_lottery.ticket.controls import random_like
from ks_lottery.ticket.ownership.key_mask import key_scores, split_ticket, unlock
from ks_lottery.ticket.ticket import Provenance
from tests.ticket.ownership.masks import QUERY, gaussian_model, magnitude_ticket

MODEL = gaussian_model(width=32)
TICKET = magnitude_ticket(MODEL, 0.2, "*.self_attn.*")


@given(st.floats(0.01, 0.99), st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_the_key_gives_the_ticket_back(key_size: float, seed: int) -> None:
    locked, key = split_ticket(TICKET, key_scores(TICKET, MODEL, "random", seed), key_size)
    assert len(key) == round(key_size * len(TICKET))
    assert len(key) + len(locked) == len(TICKET)
    whole = unlock(locked, key)
    assert whole == TICKET
    assert whole.provenance == TICKET.provenance
    for name, units in TICKET.indices.items():
        assert not np.intersect1d(locked.indices[name], key.indices[name]).size
        assert np.array_equal(whole.indices[name], units)


def test_the_key_takes_the_largest_scores_of_all_matrices() -> None:
    scores = key_scores(TICKET, MODEL, "magnitude")
    locked, key = split_ticket(TICKET, scores, 0.1)
    smallest = min(scores[name][units].min() for name, units in key.indices.items() if len(units))
    assert smallest >= max(scores[name][units].max() for name, units in locked.indices.items())


def test_path_scores_are_sums_over_all_paths() -> None:
    """By hand: the product of the chain's masked matrices with one weight left alone, over the whole product."""
    names = list(TICKET.indices)
    masks = TICKET.masks()
    weights = [(MODEL.get_parameter(name).detach().abs() * masks[name]).double() for name in names]
    scores = key_scores(TICKET, MODEL, "path")

    def total(factors: list[torch.Tensor]) -> float:
        result = torch.ones(32, dtype=torch.float64)
        for factor in factors:
            result = factor @ result
        return float(result.sum())

    for layer, name in enumerate(names):
        assert scores[name].sum() == pytest.approx(1.0)
        for place in TICKET.indices[name][:5]:
            alone = torch.zeros(32 * 32, dtype=torch.float64)
            alone[place] = weights[layer].reshape(-1)[place]
            through = total([*weights[:layer], alone.reshape(32, 32), *weights[layer + 1 :]])
            assert scores[name][place] == pytest.approx(through / total(weights), rel=1e-9, abs=1e-15)


def test_random_keys_follow_their_seed() -> None:
    first, again, other, drawn = (key_scores(TICKET, MODEL, "random", seed)[QUERY] for seed in (1, 1, 2, None))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(drawn, key_scores(TICKET, MODEL, "random")[QUERY])


def test_what_does_not_belong_together_stays_locked() -> None:
    locked, key = split_ticket(TICKET, key_scores(TICKET, MODEL, "magnitude"), 0.1)
    forged = random_like(key, seed=0)
    with pytest.raises(TicketError, match="these are tickets by 'locked' and 'random_like'"):
        unlock(locked, forged)
    forged = forged.with_units(forged.indices, key.provenance)
    with pytest.raises(TicketError, match="The key does not open this ticket: together they have fingerprint"):
        unlock(locked, forged)
    with pytest.raises(TicketError, match="The key does not open this ticket"):
        unlock(locked, split_ticket(TICKET, key_scores(TICKET, MODEL, "random", 1), 0.1)[1])
    with pytest.raises(TicketError, match="A locked ticket and a key are needed"):
        unlock(TICKET, key)
    with pytest.raises(TicketError, match="over different unit groups"):
        unlock(locked, magnitude_ticket(MODEL, 0.2).with_units({QUERY: [1]}, Provenance("key")))


def test_wrong_splits() -> None:
    scores = key_scores(TICKET, MODEL, "magnitude")
    for key_size in (0.0, 1.0, 1e-9, -0.1, np.nan):
        with pytest.raises(OptionError, match="the key and the locked ticket must both have some"):
            split_ticket(TICKET, scores, key_size)
    with pytest.raises(UnitError, match=r"q_proj.weight': none; give one for each of its 1024 weights"):
        split_ticket(TICKET, {name: score for name, score in scores.items() if name != QUERY})
    with pytest.raises(UnitError, match=r"q_proj.weight': an array of shape \(3,\)"):
        split_ticket(TICKET, {**scores, QUERY: np.zeros(3)})
    bad = scores[QUERY].copy()
    bad[TICKET.indices[QUERY][3]] = np.nan
    with pytest.raises(UnitError, match=f"The score of weight {TICKET.indices[QUERY][3]} of .* is not finite"):
        split_ticket(TICKET, {**scores, QUERY: bad})
    with pytest.raises(OptionError, match="statistic='edges': must be one of magnitude, path, random"):
        key_scores(TICKET, MODEL, "edges")  # type: ignore[arg-type]
    with pytest.raises(TicketError, match="down_proj.weight' with 32 outputs|takes 32 inputs after .* with 8 outputs"):
        key_scores(magnitude_ticket(MODEL, 0.2, "*.mlp.*"), MODEL, "path")
    with pytest.raises(TicketError, match="this is one of kind 'update'"):
        split_ticket(magnitude_ticket(MODEL, 0.2, kind="update"), scores)
