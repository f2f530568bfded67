"""One table of a comparison: finders that compete for the units of one granularity."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ks_lottery.errors import OptionError
from ks_lottery.evaluation.tasks.base import require_known
from ks_lottery.finders.base import FINDERS, Finder
from ks_lottery.finders.draws.random import Random
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.granularity import GRANULARITIES, Granularity

CONTROLS = ("shuffled", "inverted")
"""Every finder has these beside it; "random" and, of token rows, "frequency" are rows of their own."""
REINITIALISED, PERMUTED = "reinitialised", "permuted"
FURTHER_CONTROLS = (REINITIALISED, PERMUTED)
"""What a table may ask for besides: the ticket on a base whose values lost their places, and a ticket that was found on
examples whose labels or responses were exchanged."""
NO_TUNING, FULL_TUNING, ALL_UNITS = "no tuning", "full tuning", "all units"
FREQUENCY = "frequency"


@dataclass(frozen=True)
class FinderEntry:
    """A finder of a table.

    Attributes:
        label: as the table calls it.
        options: of the finder; `finder` is its registered name.

    Raises:
        UnknownNameError: if there is no such finder.
        OptionError: if an option is unknown, or one that the comparison sets.
    """

    label: str
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        given = {name: value for name, value in self.options.items() if name != "finder"}
        require_known(given, [one.name for one in dataclasses.fields(self.method)], f"Finder {self.name!r}")  # type: ignore[arg-type]
        places = {"kind": "`kind` of the table", "seed": "`replicates`"}
        places |= {"density": "`densities` of the table"} if self.learns_density else {}
        for name, place in places.items():
            if name in given:
                raise OptionError(
                    f"Finder {self.label!r}, {name}: {given[name]!r}: the comparison takes it from {place}. Leave it "
                    "out."
                )

    @property
    def name(self) -> str:
        """The registered name of the finder."""
        return str(self.options["finder"])

    @property
    def method(self) -> type[Finder]:
        """What is registered under the name."""
        return FINDERS.get(self.name)

    @property
    def is_chance(self) -> bool:
        """Whether it draws at random: the control of all others."""
        return self.method is Random

    @property
    def learns_density(self) -> bool:
        """Whether it learns a mask at a density, so that each density of a table is a search of its own."""
        return getattr(self.method, "learns_density", False)

    def make(self, kind: Kind, seed: int, density: float | None = None) -> Finder:
        """The finder for a kind of ticket and a replicate.

        Args:
            kind: of the table.
            seed: of the replicate.
            density: at which a mask is learnt; only finders that learn one take it.

        Raises:
            OptionError: if an option has a wrong value, or the finder serves the other kind alone.
        """
        given = {name: value for name, value in self.options.items() if name != "finder"}
        names = {one.name for one in dataclasses.fields(self.method)}  # type: ignore[arg-type]
        given |= {"seed": seed} if "seed" in names else {}
        given |= {"kind": kind} if "kind" in names else {}
        given |= {"density": density} if self.learns_density and density is not None else {}
        try:
            method = self.method(**given)
        except TypeError as error:
            raise OptionError(f"Finder {self.label!r} cannot be made with {given}: {error}.") from error
        if method.kind != kind:
            raise OptionError(
                f"Finder {self.label!r} finds {method.kind} tickets, but stands in a table of {kind} tickets. Move it "
                f"to a table with kind: {method.kind}."
            )
        return method


@dataclass(frozen=True)
class Table:
    """Finders that compete for units of one granularity.

    Attributes:
        kind: of all tickets.
        units: granularity.
        densities: of the tickets, over all units of the granularity.
        finders: what competes. Random units stand in every table; they are added where they are not listed.
        unit_options: of the granularity.
        controls: of `FURTHER_CONTROLS`; finding on permuted examples costs as much as finding.

    Raises:
        OptionError: if an option is out of range, two finders or a finder and a control have one name, or a finder
            serves the other kind.
        UnknownNameError: if the granularity is unknown.
    """

    kind: Kind
    units: str
    densities: tuple[float, ...]
    finders: tuple[FinderEntry, ...]
    unit_options: Mapping[str, Any] = field(default_factory=dict)
    controls: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._require_controls()
        if self.kind not in ("update", "weight"):
            raise OptionError(f"{self.what}, kind: {self.kind!r}: must be update or weight.")
        wrong = [density for density in self.densities if not 0.0 < density < 1.0]
        if wrong or len(set(self.densities)) < max(1, len(self.densities)):
            raise OptionError(
                f"{self.what}, densities: {list(self.densities)}: give at least one, each between 0 and 1, and each "
                "once."
            )
        if not any(entry.is_chance for entry in self.finders):
            object.__setattr__(self, "finders", (*self.finders, FinderEntry("random", {"finder": "random"})))
        names = list(self._names())
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise OptionError(f"{self.what} has two rows called {twice!r}. Give one of the finders another label.")
        self.granularity()
        for entry in self.finders:
            entry.make(self.kind, 0, self.densities[0])

    @property
    def what(self) -> str:
        """The table in messages."""
        return f"The table of {self.kind} tickets of {self.units}"

    @property
    def all_controls(self) -> tuple[str, ...]:
        """Controls that every finder has beside it."""
        return *CONTROLS, *self.controls

    def granularity(self) -> Granularity:
        """What is selected whole."""
        entry = GRANULARITIES.get(self.units)
        known = [one.name for one in dataclasses.fields(entry) if one.init]  # type: ignore[arg-type]
        require_known(self.unit_options, known, f"{self.what}, unit_options:")
        options = {name: tuple(v) if isinstance(v, list) else v for name, v in self.unit_options.items()}
        return entry(**options)

    def finder(self, label: str) -> FinderEntry:
        """The entry of this label."""
        return next(entry for entry in self.finders if entry.label == label)

    def _names(self) -> Iterator[str]:
        """Of all rows."""
        yield from (NO_TUNING, FULL_TUNING, ALL_UNITS, FREQUENCY)
        for entry in self.finders:
            yield entry.label
            yield from (f"{entry.label}, {control}" for control in self.all_controls)

    def _require_controls(self) -> None:
        unknown = [control for control in self.controls if control not in FURTHER_CONTROLS]
        if unknown or len(set(self.controls)) < len(self.controls):
            raise OptionError(
                f"{self.what}, controls: {list(self.controls)}: may hold {' and '.join(FURTHER_CONTROLS)}, each once; "
                f"{', '.join(CONTROLS)} and random units stand in every table."
            )
        if REINITIALISED in self.controls and self.kind == "update":
            raise OptionError(
                f"{self.what}, controls: {REINITIALISED} is for weight tickets. An update ticket keeps the rest of the "
                "base, which would lose all that it knows."
            )


def read_table(values: Any, number: int) -> Table:
    """Read what a person wrote of a table.

    Args:
        values: `units`, `densities`, `finders`, and if wanted `kind`, `unit_options` and `controls`.
        number: of the table, from 0, for messages.

    Raises:
        OptionError, UnknownNameError: as the classes say, and if something is missing or of a wrong form.
    """
    what = f"Table {number + 1}"
    if not isinstance(values, Mapping):
        raise OptionError(f"{what} is {values!r}: it must hold units, densities and finders.")
    require_known(values, ("kind", "units", "densities", "finders", "unit_options", "controls"), what)
    for name in ("units", "densities", "finders"):
        if not values.get(name):
            raise OptionError(f"{what} lacks {name!r}.")
    densities = values["densities"] if isinstance(values["densities"], list) else [values["densities"]]
    if not all(isinstance(density, int | float) for density in densities):
        raise OptionError(f"{what}, densities: {values['densities']!r}: each must be a number between 0 and 1.")
    if not isinstance(values["finders"], list):
        raise OptionError(f"{what}, finders: {values['finders']!r}: must be a list, one finder a line after a dash.")
    unit_options = values.get("unit_options") or {}
    if not isinstance(unit_options, Mapping):
        raise OptionError(f"{what}, unit_options: {unit_options!r}: must hold options by name.")
    controls = values.get("controls") or []
    if not isinstance(controls, list):
        raise OptionError(f"{what}, controls: {controls!r}: must be a list.")
    return Table(
        values.get("kind", "update"), str(values["units"]), tuple(map(float, densities)),
        tuple(_finder(entry) for entry in values["finders"]), dict(unit_options), tuple(controls),
    )  # fmt: skip


def _finder(entry: Any) -> FinderEntry:
    if isinstance(entry, str):
        return FinderEntry(entry, {"finder": entry})
    if not isinstance(entry, Mapping):
        raise OptionError(f"The finder {entry!r} must be a name, or `finder: name` with options beside it.")
    if "finder" not in entry:
        raise OptionError(f"The finder {dict(entry)} has no name: write `finder: ks`, and its options beside it.")
    options = {str(key): value for key, value in entry.items() if key != "label"}
    return FinderEntry(str(entry.get("label", entry["finder"])), options)
