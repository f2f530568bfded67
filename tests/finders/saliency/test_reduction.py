"""Numbers of single weights become numbers of units, whatever slabs these consist of."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ks_lottery.errors import UnitError
from ks_lottery.finders.saliency.reduction import reduce_slab, reduce_units, unit_scores
from ks_lottery.units.slab import Slab, UnitGroup


@st.composite
def slabs(draw: st.DrawFn) -> tuple[Slab, tuple[int, ...], int]:
    """A slab, a shape that it fits, and its number of units."""
    units, width, start = draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(0, 3))
    along = start + units * width + draw(st.integers(0, 2))
    lead = draw(st.lists(st.integers(1, 3), max_size=2))
    others = draw(st.lists(st.integers(1, 4), min_size=0, max_size=2))
    if draw(st.booleans()):
        shape = (*lead, *others[:1], along) if others else (*lead, along)
        return Slab("w", None, width, start, tuple(size - 1 for size in lead)), shape, units
    axis = draw(st.integers(0, len(others)))
    shape = (*lead, *others[:axis], along, *others[axis:])
    return Slab("w", len(lead) + axis, width, start, tuple(size - 1 for size in lead)), shape, units


@settings(max_examples=150, deadline=None)
@given(slab_of=slabs(), seed=st.integers(0, 1000))
def test_a_unit_is_reduced_over_the_weights_that_take_gives(
    slab_of: tuple[Slab, tuple[int, ...], int], seed: int
) -> None:
    slab, shape, units = slab_of
    values = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    rows = slab.take(values, np.arange(units))
    np.testing.assert_allclose(reduce_slab(slab, values, units, "sum"), rows.sum(dim=1).numpy(), atol=1e-12)
    np.testing.assert_allclose(reduce_slab(slab, values, units, "norm"), rows.norm(dim=1).numpy(), rtol=1e-12)


def test_slabs_of_a_unit_are_added_or_combined() -> None:
    group = UnitGroup("g", (Slab("a", 0, width=2), Slab("b", 1)), 2)
    values = {"a": torch.tensor([[3.0], [0.0], [0.0], [5.0]]), "b": torch.tensor([[4.0, 12.0]])}
    assert reduce_units(group, values).tolist() == [7.0, 17.0]
    assert reduce_units(group, values, "norm").tolist() == [5.0, 13.0]


def test_single_weights_are_not_copied() -> None:
    values = {"a": torch.randn(3, 4)}
    (entry,) = unit_scores([UnitGroup("a", (Slab("a", None),), 12)], values, "weight")
    assert entry.score.dtype == np.float32
    assert entry.score.ctypes.data == values["a"].data_ptr()
    assert entry.columns["score"] is entry.score


def test_a_bad_number_is_named() -> None:
    values = {"a": torch.ones(3, 2), "b": torch.ones(3)}
    values["b"][1] = float("inf")
    with pytest.raises(UnitError, match=r"score of unit 1 of 'g' is NaN or infinite in 'b': the gradient overflowed"):
        reduce_units(UnitGroup("g", (Slab("a", 0), Slab("b", 0)), 3), values)
    with pytest.raises(UnitError, match=r"4 units of 1 from 0 on do not fit into 'a' of shape \(3, 2\)"):
        reduce_units(UnitGroup("g", (Slab("a", 0),), 4), values)
