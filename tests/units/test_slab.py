"""Slabs: index arithmetic against plain slicing, on arrays and tensors, in every number of dimensions."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ks_lottery.errors import UnitError
from ks_lottery.units.slab import Slab, UnitGroup, parameters_of


@st.composite
def cases(draw: st.DrawFn) -> tuple[Slab, tuple[int, ...], np.ndarray]:
    """A slab, the shape of its parameter, and some of its units in any order."""
    lead = tuple(draw(st.lists(st.integers(0, 2), max_size=2)))
    inside = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    dim = draw(st.one_of(st.none(), st.integers(0, len(inside) - 1)))
    size = math.prod(inside) if dim is None else inside[dim]
    width = draw(st.integers(1, size))
    start = draw(st.integers(0, size - width))
    count = (size - start) // width
    units = draw(st.lists(st.integers(0, count - 1), unique=True, max_size=4))
    slab = Slab("w", None if dim is None else dim + len(lead), width, start, lead)
    return slab, (*(3 for _ in lead), *inside), np.array(units, dtype=np.int64)


def by_slicing(slab: Slab, values: np.ndarray, unit: int) -> np.ndarray:
    """What a unit owns, flattened, by the definition."""
    inside = values[slab.lead]
    own = slice(slab.start + unit * slab.width, slab.start + (unit + 1) * slab.width)
    if slab.dim is None:
        return inside.reshape(-1)[own]
    return inside[(*[slice(None)] * (slab.dim - len(slab.lead)), own)].reshape(-1)


@given(cases())
def test_take_is_slicing(case: tuple[Slab, tuple[int, ...], np.ndarray]) -> None:
    slab, shape, units = case
    values = np.arange(math.prod(shape), dtype=np.float64).reshape(shape)
    taken = slab.take(values, units)
    assert taken.shape == (len(units), slab.weights_per_unit(shape))
    for row, unit in zip(taken, units, strict=True):
        assert row.tolist() == by_slicing(slab, values, unit).tolist()
    assert np.array_equal(slab.take(torch.from_numpy(values), units).numpy(), taken)


@given(cases())
def test_put_writes_what_take_reads_and_nothing_else(case: tuple[Slab, tuple[int, ...], np.ndarray]) -> None:
    slab, shape, units = case
    values = np.arange(1, 1 + math.prod(shape), dtype=np.float64).reshape(shape)
    written = np.zeros(shape)
    slab.put(written, units, slab.take(values, units))
    mask = np.zeros(shape, dtype=bool)
    slab.fill(mask, units, True)
    assert np.array_equal(written, values * mask)
    assert mask.sum() == len(units) * slab.weights_per_unit(shape)
    tensor = torch.zeros(shape, dtype=torch.float64)
    slab.put(tensor, units, slab.take(torch.from_numpy(values), units))
    assert np.array_equal(tensor.numpy(), written)


@given(cases())
def test_slabs_survive_json_and_lead_is_written_only_where_there_is_one(
    case: tuple[Slab, tuple[int, ...], np.ndarray],
) -> None:
    slab, _, _ = case
    group = UnitGroup("any", (slab,), 1)
    written = json.loads(json.dumps(group.to_dict()))
    assert UnitGroup.from_dict(written) == group
    assert ("lead" in written["slabs"][0]) == bool(slab.lead)


def test_views_are_written_through() -> None:
    values = np.zeros((3, 4))
    Slab("w", None).put(values.T, np.array([1, 5]), np.array([[7.0], [8.0]]))
    assert values[1, 0] == 7.0
    assert values[2, 1] == 8.0
    tensor = torch.zeros(3, 4)
    Slab("w", None).fill(tensor.T, np.array([1]), 7.0)
    assert tensor[1, 0] == 7.0


def test_a_parameter_without_dimensions_is_one_weight() -> None:
    for values in (np.array(2.0), torch.tensor(2.0)):
        slab, units = Slab("scale", None), np.array([0])
        assert slab.weights_per_unit(()) == 1
        assert slab.take(values, units).tolist() == [[2.0]]
        slab.fill(values, units, 3.0)
        assert float(values) == 3.0


def test_gradient_flows_through_take() -> None:
    values = torch.zeros(2, 3, requires_grad=True)
    Slab("w", 1).take(values, np.array([2, 0])).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [[1.0, 0.0, 1.0]] * 2


def test_indices_and_sizes() -> None:
    assert Slab("w", 0, width=2, start=3).indices(np.array([2, 0])).tolist() == [7, 8, 3, 4]
    assert Slab("w", None).weights_per_unit((3, 4)) == 1
    assert Slab("w", 1, width=2).weights_per_unit((3, 4)) == 6
    assert Slab("w", 2, lead=(5,)).weights_per_unit((8, 3, 4)) == 3


def test_slabs_refuse_dimensions_that_are_not_there() -> None:
    with pytest.raises(UnitError, match=r"lies along dimension 2, but the parameter has shape \(3, 4\).* from 0 to 1"):
        Slab("w", dim=2).weights_per_unit((3, 4))
    with pytest.raises(UnitError, match=r"lies along dimension 0, .* from 1 to 2"):
        Slab("w", dim=0, lead=(1,)).weights_per_unit((2, 3, 4))
    for lead in ((2,), (-1,), (0, 0)):
        with pytest.raises(UnitError, match=r"at leading indices .* but the parameter has shape \(2, 3\)"):
            Slab("w", dim=1, lead=lead).weights_per_unit((2, 3))


def test_groups_are_not_empty_and_name_their_parameters_once() -> None:
    with pytest.raises(UnitError, match="has 0 units in 1 slabs"):
        UnitGroup("empty", (Slab("w", 0),), 0)
    groups = [UnitGroup("a", (Slab("v", 0), Slab("w", 0)), 1), UnitGroup("b", (Slab("v", 0, start=1),), 1)]
    assert list(parameters_of(groups)) == ["v", "w"]
    assert groups[0].weights_per_unit({"v": (2, 3), "w": (2,)}) == 4
