"""What a granularity is, and the registry of them."""

from collections.abc import Sequence
from typing import ClassVar, Protocol, cast, runtime_checkable

from ks_lottery.registry import Registry
from ks_lottery.units.layout import ModelLayout
from ks_lottery.units.slab import UnitGroup


@runtime_checkable
class Granularity(Protocol):
    """The kind of thing that is selected whole; a dataclass whose fields are its options."""

    name: ClassVar[str]

    def groups(self, layout: ModelLayout) -> Sequence[UnitGroup]:
        """List the unit groups of a model, in a fixed order.

        Raises:
            UnitError: if the model lacks what the units consist of.
        """
        ...


GRANULARITIES: Registry[type[Granularity]] = Registry("granularity", "ks_lottery.units")


def granularity(units: "str | Granularity") -> Granularity:
    """Turn a name into a granularity with default options; pass an instance through. Errors as `Registry.instance`."""
    return cast(Granularity, GRANULARITIES.instance(units, Granularity, "units"))
