"""Where a unit lives in the weights: slabs of parameters, and groups of units that compete."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ks_lottery.errors import UnitError

if TYPE_CHECKING:
    import torch

Array = TypeVar("Array", np.ndarray, "torch.Tensor")


@dataclass(frozen=True, slots=True)
class Slab:
    """A run of equal slices of one parameter.

    Unit `i` owns the indices `[start + i * width, start + (i + 1) * width)` of `parameter` along `dim`. With `dim`
    None a unit is `width` single weights (one, as a rule) and indices count into the flattened parameter.

    With `lead` all of this happens inside `parameter[lead]`: expert `e` of a fused [experts, rows, columns] matrix has
    `lead=(e,)`. `dim` counts the parameter's dimensions, those of `lead` included.
    """

    parameter: str
    dim: int | None
    width: int = 1
    start: int = 0
    lead: tuple[int, ...] = ()

    def indices(self, units: np.ndarray) -> np.ndarray:
        """Indices along `dim` (inside `parameter[lead]`) that the given units own.

        Args:
            units: [k] integer unit numbers.

        Returns:
            [k * width] int64, in the order of `units`.
        """
        first = self.start + np.asarray(units, dtype=np.int64)[:, None] * self.width
        return (first + np.arange(self.width, dtype=np.int64)).reshape(-1)

    def weights_per_unit(self, shape: Sequence[int]) -> int:
        """Number of single weights that one unit owns in a parameter of this shape.

        Raises:
            UnitError: if `dim` or `lead` does not exist in the shape.
        """
        if len(self.lead) >= len(shape) > 0 or any(not 0 <= i < n for i, n in zip(self.lead, shape, strict=False)):
            raise UnitError(
                f"A slab of {self.parameter!r} lies at leading indices {self.lead}, but the parameter has shape "
                f"{tuple(shape)}. Describe it with leading indices that exist, and fewer than {len(shape)}."
            )
        if self.dim is None:
            return self.width
        if not len(self.lead) <= self.dim < len(shape):
            raise UnitError(
                f"A slab of {self.parameter!r} lies along dimension {self.dim}, but the parameter has shape "
                f"{tuple(shape)}. Describe it with a dimension from {len(self.lead)} to {len(shape) - 1}."
            )
        inside = range(len(self.lead), len(shape))
        return self.width * math.prod(shape[axis] for axis in inside if axis != self.dim)

    def take(self, values: Array, units: np.ndarray) -> Array:
        """Copy the weights of some units.

        Args:
            values: array or tensor of the parameter's shape; a tensor may require gradient.
            units: [k] integer unit numbers.

        Returns:
            [k, weights_per_unit], of the type, dtype and device of `values`; row `j` is the unit `units[j]`'s part of
            the parameter, flattened with the last dimension fastest.

        Cost:
            One copy of the result.
        """
        inside, where, shape, axis = self._place(values, units)
        before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
        blocks = inside[where].reshape(before, len(units), self.width * after)
        return blocks.swapaxes(0, 1).reshape(len(units), before * self.width * after)

    def put(self, values: Array, units: np.ndarray, rows: Array) -> None:
        """Write the weights of some units in place: the inverse of `take`.

        Args:
            values: array or tensor of the parameter's shape.
            units: [k] integer unit numbers, each once.
            rows: [k, weights_per_unit], in the order that `take` gives.
        """
        inside, where, shape, axis = self._place(values, units)
        before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
        inside[where] = rows.reshape(len(units), before, self.width * after).swapaxes(0, 1).reshape(shape)

    def fill(self, values: Array, units: np.ndarray, value: float | bool) -> None:
        """Set every weight of some units to one value, in place; arguments as `put`."""
        inside, where, _, _ = self._place(values, units)
        inside[where] = value

    def _place(self, values: Any, units: np.ndarray) -> tuple[Any, tuple[Any, ...], tuple[int, ...], int]:
        """A view into `values`, the index of the units in it, the shape of what lies there, and the units' axis."""
        inside = values[(*self.lead, ...)]
        indices = self.indices(units)
        if self.dim is None:
            inside = inside if len(inside.shape) else inside[None]
            return inside, np.unravel_index(indices, tuple(inside.shape)), indices.shape, 0
        axis, shape = self.dim - len(self.lead), tuple(inside.shape)
        where = (*[slice(None)] * axis, indices)
        return inside, where, (*shape[:axis], len(indices), *shape[axis + 1 :]), axis


@dataclass(frozen=True, slots=True)
class UnitGroup:
    """Units that compete with each other; the slabs of one unit are selected together.

    Attributes:
        name: unique within a granularity ("input", "output", "layers.3.heads").
        slabs: every parameter slice that one unit consists of.
        num_units: units in the group, numbered from 0.
    """

    name: str
    slabs: tuple[Slab, ...]
    num_units: int

    def __post_init__(self) -> None:
        if self.num_units < 1 or not self.slabs:
            raise UnitError(
                f"Unit group {self.name!r} has {self.num_units} units in {len(self.slabs)} slabs; "
                "a group needs at least one of each."
            )

    def weights_per_unit(self, shapes: Mapping[str, Sequence[int]]) -> int:
        """Number of single weights that one unit owns, over all its slabs."""
        return sum(slab.weights_per_unit(shapes[slab.parameter]) for slab in self.slabs)

    def to_dict(self) -> dict[str, object]:
        """A JSON form that `from_dict` reads back; `lead` stands in it only where it is not empty."""
        slabs = [
            {"parameter": slab.parameter, "dim": slab.dim, "width": slab.width, "start": slab.start}
            | ({"lead": list(slab.lead)} if slab.lead else {})
            for slab in self.slabs
        ]
        return {"name": self.name, "num_units": self.num_units, "slabs": slabs}

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> "UnitGroup":
        """Read what `to_dict` wrote."""
        slabs = tuple(
            Slab(**{**slab, "lead": tuple(slab.get("lead", ()))})
            for slab in data["slabs"]  # type: ignore[attr-defined]
        )
        return cls(name=str(data["name"]), slabs=slabs, num_units=int(data["num_units"]))  # type: ignore[call-overload]


def parameters_of(groups: Sequence[UnitGroup]) -> Iterator[str]:
    """Names of the parameters that the groups touch, each once, in order of first use."""
    yield from dict.fromkeys(slab.parameter for group in groups for slab in group.slabs)
