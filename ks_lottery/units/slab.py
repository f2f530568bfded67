"""Where a unit lives in the weights: slabs of parameters, and groups of units that compete."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ks_lottery.errors import UnitError


@dataclass(frozen=True, slots=True)
class Slab:
    """A run of equal slices of one parameter.

    Unit `i` owns the indices `[start + i * width, start + (i + 1) * width)` of `parameter` along `dim`. With `dim`
    None a unit is one single weight and indices count into the flattened parameter.
    """

    parameter: str
    dim: int | None
    width: int = 1
    start: int = 0

    def indices(self, units: np.ndarray) -> np.ndarray:
        """Indices along `dim` that the given units own.

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
            UnitError: if `dim` is not a dimension of the shape.
        """
        if self.dim is None:
            return self.width
        if not 0 <= self.dim < len(shape):
            raise UnitError(
                f"A slab of {self.parameter!r} lies along dimension {self.dim}, but the parameter has shape "
                f"{tuple(shape)}. Describe it with a dimension below {len(shape)}."
            )
        others = int(np.prod([size for axis, size in enumerate(shape) if axis != self.dim], dtype=np.int64))
        return self.width * others


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
        """A JSON form that `from_dict` reads back."""
        slabs = [
            {"parameter": slab.parameter, "dim": slab.dim, "width": slab.width, "start": slab.start}
            for slab in self.slabs
        ]
        return {"name": self.name, "num_units": self.num_units, "slabs": slabs}

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> "UnitGroup":
        """Read what `to_dict` wrote."""
        slabs = tuple(Slab(**slab) for slab in data["slabs"])  # type: ignore[attr-defined]
        return cls(name=str(data["name"]), slabs=slabs, num_units=int(data["num_units"]))  # type: ignore[call-overload]


def parameters_of(groups: Sequence[UnitGroup]) -> Iterator[str]:
    """Names of the parameters that the groups touch, each once, in order of first use."""
    yield from dict.fromkeys(slab.parameter for group in groups for slab in group.slabs)
