"""Masks as cells, and the places where a pattern fits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ks_lottery.errors import OptionError, TicketError
from ks_lottery.ticket.ownership.cells import (
    all_places,
    best_places,
    mask_of,
    matching,
    matrices,
    occupied,
    places,
    require_block,
)
from ks_lottery.ticket.ownership.credential import SIZES, written_cells
from tests.ticket.ownership.masks import QUERY, gaussian_model, magnitude_ticket


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 9), st.integers(0, 9))
@settings(deadline=None, max_examples=40)
def test_matches_are_counted_at_every_place(seed: int, size: int, more_rows: int, more_columns: int) -> None:
    generator = np.random.default_rng(seed)
    cells = generator.random((size + more_rows, size + more_columns)) < 0.5
    pattern, written = generator.random((2, size, size)) < 0.5
    found = matching(cells, pattern, written)
    assert found.shape == (more_rows + 1, more_columns + 1)
    for row, column in np.ndindex(found.shape):
        inside = cells[row : row + size, column : column + size]
        assert found[row, column] == (inside == pattern)[written].sum()


def test_a_cell_is_occupied_if_any_weight_is() -> None:
    mask = np.zeros((7, 8), dtype=bool)
    mask[1, 2] = mask[3, 3] = mask[6, 7] = True  # the last one lies in no whole cell
    assert occupied(mask, 3).tolist() == [[True, False], [False, True]]
    assert (occupied(mask, 1) == mask).all()


def test_places() -> None:
    assert places([(30, 40), (20, 90)], 1, 21) == 10 * 20
    assert places([(90, 64)], 3, 21) == 10 * 1
    assert all_places([(63, 63)]) == sum(max(0, 63 // block - size + 1) ** 2 for block in range(1, 9) for size in SIZES)


@pytest.mark.parametrize(("density", "block"), [(0.5, 3), (0.2, 3), (0.2, 1)])
def test_an_unmarked_mask_is_like_nothing(density: float, block: int) -> None:
    """All 841 cells of random patterns, at the best place of a grid of four: .51 to .56, as measured for the card."""
    ticket = magnitude_ticket(gaussian_model(), density)
    cells, everywhere = occupied(mask_of(ticket, QUERY), block), np.ones((29, 29), dtype=bool)
    for seed in range(5):
        pattern = np.random.default_rng(seed).random((29, 29)) < 0.5
        best = matching(cells, pattern, everywhere)[::4, ::4].max() / 841
        assert 0.44 < best < 0.57  # a mask without empty cells matches the ones of the pattern, about half
        found = list(best_places(ticket, pattern, written_cells(29), block))
        assert [name for _, name, _, _ in found] == [QUERY]
        assert found[0][0] < 0.61


def test_only_weight_tickets_of_single_weights() -> None:
    model = gaussian_model()
    assert matrices(magnitude_ticket(model, 0.2)) == {QUERY: (128, 128)}
    assert matrices(magnitude_ticket(model, 0.2, "*norm.weight")) == {}
    with pytest.raises(TicketError, match="this is one of kind 'update' over 'weights'. Sign its file instead"):
        matrices(magnitude_ticket(model, 0.2, kind="update"))


def test_block_sizes() -> None:
    for block in (0, 9):
        with pytest.raises(OptionError, match=f"block={block}: a cell has from 1 to 8 weights along a side"):
            require_block(block)
