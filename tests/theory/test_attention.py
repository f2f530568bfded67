"""Strong tickets of attention: exact algebra, the bound, an error that falls with the width and not with the length."""

import math
import re
from statistics import median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ks_lottery.errors import DataError, OptionError
from ks_lottery.theory.attention import (
    AttentionTicket,
    attention_ticket,
    draw_source,
    draw_target,
    pair_masks,
    softmax_bound,
    unit_norm,
)  # fmt: skip
from ks_lottery.theory.attention_heads import AttentionHeads, causal, largest_error

WIDTHS = (4, 6, 8, 10, 12, 14, 16)
DRAWS = range(9)
ALPHA = 2.0


def sphere(seed: int, length: int, width: int = 4) -> np.ndarray:
    tokens = np.random.default_rng(500 + seed).standard_normal((length, width))
    return ALPHA * tokens / np.linalg.norm(tokens, axis=1, keepdims=True)


def target(seed: int) -> AttentionHeads:
    return draw_target(np.random.default_rng(seed), 2, 4, 4, 4, 4)


def source(seed: int, items: int, scaled: bool = True) -> AttentionHeads:
    return draw_source(np.random.default_rng(100 + seed), 2, 4, 4, 4 * items, 4 * items, scaled=scaled)


def error(found: AttentionHeads, wanted: AttentionHeads, tokens: np.ndarray) -> float:
    return largest_error(found.forward(tokens), wanted.forward(tokens))


@pytest.fixture(scope="module")
def tickets() -> dict[int, list[AttentionTicket]]:
    return {items: [attention_ticket(target(seed), source(seed, items)) for seed in DRAWS] for items in WIDTHS}


def test_error_falls_a_hundredfold_and_exponentially(tickets: dict[int, list[AttentionTicket]]) -> None:
    for length in (8, 512):
        errors = [
            median(error(ticket.attention(), ticket.target, sphere(seed, length)) for seed, ticket in enumerate(found))
            for found in tickets.values()
        ]
        assert errors[0] >= 100 * errors[-1]
        slope = np.polyfit(WIDTHS, np.log(errors), 1)[0]
        assert -0.8 < slope < -0.3


def test_error_does_not_grow_with_the_length(tickets: dict[int, list[AttentionTicket]]) -> None:
    for found in tickets.values():
        short, long = (
            median(error(ticket.attention(), ticket.target, sphere(seed, length)) for seed, ticket in enumerate(found))
            for length in (8, 512)
        )
        assert long <= 4 * short + 1e-3


def test_without_the_factor_the_same_masks_are_a_hundred_times_worse(tickets: dict[int, list[AttentionTicket]]) -> None:
    with_factor, without = [], []
    for seed, ticket in enumerate(tickets[16]):
        raw = source(seed, 16, scaled=False)
        np.testing.assert_allclose(raw.query * 64**0.25, ticket.source.query, rtol=1e-15)
        tokens = sphere(seed, 512)
        with_factor.append(error(ticket.attention(), ticket.target, tokens))
        without.append(error(raw.masked(ticket.masks), ticket.target, tokens))
    assert median(without) > 100 * median(with_factor)


def test_density_is_that_of_the_construction(tickets: dict[int, list[AttentionTicket]]) -> None:
    for items in (10, 16):
        for ticket in tickets[items]:
            assert 0.3 < ticket.masks.density < 0.4
            assert ticket.masks.query.mean() == ticket.masks.value.mean() == 0.25


def test_the_bound_holds_at_any_length_and_mask(tickets: dict[int, list[AttentionTicket]]) -> None:
    for items in WIDTHS:
        for seed, ticket in enumerate(tickets[items]):
            tokens = sphere(seed, 64)
            for allowed in (None, causal(64)):
                found = largest_error(
                    ticket.attention().forward(tokens, allowed), ticket.target.forward(tokens, allowed)
                )
                assert found <= ticket.bound(ALPHA)


@settings(max_examples=20, deadline=None)
@given(
    heads=st.integers(1, 3), d_in=st.integers(1, 4), d_out=st.integers(1, 4), items=st.integers(1, 6),
    rest=st.integers(0, 3), seed=st.integers(0, 99),
)  # fmt: skip
def test_the_masked_source_has_exactly_the_chosen_sums(
    heads: int, d_in: int, d_out: int, items: int, rest: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    width = d_in * items + min(rest, d_in - 1)
    wanted = draw_target(draw, heads, d_in, d_out, 3, 3)
    random = draw_source(draw, heads, d_in, d_out, width, width)
    untouched = {name: matrix.copy() for name, matrix in random.matrices()}
    ticket = attention_ticket(wanted, random)
    for name, matrix in ticket.source.matrices():
        mask = getattr(ticket.masks, name)
        assert (mask.dtype, mask.shape) == (bool, matrix.shape)
        assert (matrix == untouched[name]).all()
    products = (ticket.attention().query_key(), ticket.attention().value_output())
    root = math.sqrt(width)
    for head in range(heads):
        for row in range(d_in):
            block = slice(row * items, (row + 1) * items)
            for column in range(d_in):
                kept = ticket.masks.key[head, column, block]
                terms = random.query[head, row, block] * random.key[head, column, block] / root
                assert abs(products[0][head, row, column] - terms[kept].sum()) <= 1e-12
                every = np.array([terms[[int(bit) for bit in places]].sum() for places in subsets(items)])
                best = np.abs(every - wanted.query_key()[head, row, column]).min()
                assert abs(ticket.product_errors()[0][head, row, column]) <= best + 1e-12
            for column in range(d_out):
                kept = ticket.masks.output[head, block, column]
                terms = random.value[head, row, block] * random.output[head, block, column]
                assert abs(products[1][head, row, column] - terms[kept].sum()) <= 1e-12


def subsets(items: int) -> list[list[int]]:
    return [[place for place in range(items) if number >> place & 1] for number in range(1 << items)]


def test_columns_beyond_the_blocks_are_not_kept() -> None:
    ticket = attention_ticket(target(0), draw_source(np.random.default_rng(0), 2, 4, 4, 4 * 5 + 3, 4 * 6 + 1))
    for name in ("query", "key"):
        assert not getattr(ticket.masks, name)[:, :, 20:].any()
    assert not ticket.masks.value[:, :, 24:].any()
    assert not ticket.masks.output[:, 24:].any()
    assert ticket.masks.query.sum() == 2 * 20


def test_a_target_inside_the_source_is_found_exactly() -> None:
    random = source(0, 3)
    draw = np.random.default_rng(9)
    hidden = draw.random((2, 12, 4)) < 0.5
    blocks = np.repeat(np.eye(4, dtype=bool), 3, axis=1)[None].repeat(2, axis=0)
    wanted = np.where(blocks, random.value, 0) @ np.where(hidden, random.output, 0)
    first, second = pair_masks(random.value, random.output, wanted)
    assert (first == blocks).all()
    assert (second == hidden).all()


@settings(max_examples=100, deadline=None)
@given(
    length=st.integers(1, 20), width=st.integers(1, 5), size=st.floats(1e-6, 1.5), spread=st.floats(0.1, 5.0),
    seed=st.integers(0, 999),
)  # fmt: skip
def test_softmax_moves_no_farther_than_its_bound(
    length: int, width: int, size: float, spread: float, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    tokens = draw.standard_normal((length, width))
    logits, moves = spread * draw.standard_normal(length), size * draw.choice([-1.0, 1.0], length)

    def average(values: np.ndarray) -> np.ndarray:
        weights = np.exp(values - values.max())
        return weights / weights.sum() @ tokens

    alpha = float(np.linalg.norm(tokens, axis=1).max())
    moved = float(np.linalg.norm(average(logits + moves) - average(logits)))
    bound = softmax_bound(size, alpha, width)
    assert moved <= bound * (1 + 1e-9) + 1e-12
    if size <= 0.5:
        assert bound <= 4 * math.sqrt(width) * alpha * size


def test_the_bound_of_softmax_in_numbers() -> None:
    assert softmax_bound(0.0, 2.0, 4) == 0.0
    assert softmax_bound(0.5, 2.0, 4) == pytest.approx(4 * (math.e - 1), rel=1e-15)
    assert softmax_bound(1e9, 2.0, 4) == math.inf


def test_draws_have_their_ranges_and_norms() -> None:
    random = draw_source(np.random.default_rng(0), 3, 5, 4, 81, 70)
    for matrix in (random.query, random.key):
        assert 2.9 < np.abs(matrix).max() <= 3.0
    for matrix in (random.value, random.output):
        assert 0.98 < np.abs(matrix).max() <= 1.0
    for _, matrix in target(3).matrices():
        np.testing.assert_allclose(np.linalg.norm(matrix, ord=2, axis=(1, 2)), 1.0, rtol=1e-12)
    assert (unit_norm(np.zeros((2, 3, 3))) == 0).all()


@pytest.mark.parametrize(("n_key", "n_value", "name"), [(3, 16, "n_key"), (16, 3, "n_value")])
def test_a_target_wider_than_the_source(n_key: int, n_value: int, name: str) -> None:
    narrow = draw_source(np.random.default_rng(0), 2, 4, 4, n_key, n_value)
    with pytest.raises(OptionError, match=rf"wider than the source: .* {name} = 3. Draw a source with {name} = 120: "):
        attention_ticket(target(0), narrow)


def test_the_width_in_the_message_does() -> None:
    wanted = draw_target(np.random.default_rng(0), 1, 2, 2, 2, 2)
    with pytest.raises(OptionError) as raised:
        attention_ticket(wanted, draw_source(np.random.default_rng(0), 1, 2, 2, 1, 50))
    width = re.search(r"Draw a source with n_key = (\d+): the theorem's rule gives", str(raised.value))
    assert width is not None
    ticket = attention_ticket(wanted, draw_source(np.random.default_rng(1), 1, 2, 2, int(width.group(1)), 50))
    tokens = math.sqrt(2) * unit_norm(np.random.default_rng(1).standard_normal((32, 1, 2)))[:, 0]
    assert error(ticket.attention(), wanted, tokens) <= 0.01


def test_other_heads_than_the_target() -> None:
    with pytest.raises(OptionError, match="The target has 2 heads .* the source has 3, 4 and 4"):
        attention_ticket(target(0), draw_source(np.random.default_rng(0), 3, 4, 4, 16, 16))


@pytest.mark.parametrize("name", ["query", "key", "value", "output"])
def test_norms_above_one(name: str) -> None:
    matrices = dict(target(0).matrices())
    matrices[name] = matrices[name] * np.array([1.0, 2.5])[:, None, None]
    with pytest.raises(
        OptionError, match=rf"target's {name} of head 1 has a spectral norm of 2.5, .* Divide it by 2.5"
    ):
        attention_ticket(AttentionHeads(**matrices), source(0, 4))


def test_more_items_than_the_solver_takes() -> None:
    with pytest.raises(OptionError, match="31 items"):
        attention_ticket(target(0), source(0, 31))


def test_norms_of_what_is_not_finite() -> None:
    with pytest.raises(DataError, match="spectral norm was asked of a matrix with NaN"):
        unit_norm(np.full((1, 2, 2), np.nan))
