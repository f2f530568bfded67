"""What is compared: tables, tasks, replicates and a budget, as a person writes them in YAML."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ks_lottery.errors import OptionError
from ks_lottery.evaluation.tasks.base import require_known
from ks_lottery.finders.base import FINDERS, Finder
from ks_lottery.finders.draws.random import Random
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.granularity import GRANULARITIES, Granularity

CONTROLS = ("shuffled", "inverted")
"""Every finder has these beside it; "random" and, of token rows, "frequency" are rows of their own."""


@dataclass(frozen=True)
class FinderEntry:
    """A finder of a table.

    Attributes:
        label: as the table calls it.
        options: of the finder; `finder` is its registered name.
    """

    label: str
    options: Mapping[str, Any]

    def make(self, kind: Kind, seed: int) -> Finder:
        """The finder for a kind of ticket and a replicate.

        Raises:
            OptionError: if the finder serves the other kind alone.
        """
        given = dict(self.options)
        entry = FINDERS.get(given.pop("finder"))
        names = {field.name for field in dataclasses.fields(entry)}  # type: ignore[arg-type]
        given |= {"seed": seed} if "seed" in names else {}
        given |= {"kind": kind} if "kind" in names else {}
        method = entry(**given)
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
        finders: what competes.
        unit_options: of the granularity.
    """

    kind: Kind
    units: str
    densities: tuple[float, ...]
    finders: tuple[FinderEntry, ...]
    unit_options: Mapping[str, Any] = field(default_factory=dict)

    def granularity(self) -> Granularity:
        """What is selected whole."""
        options = {name: tuple(v) if isinstance(v, list) else v for name, v in self.unit_options.items()}
        return GRANULARITIES.get(self.units)(**options)

    def finder(self, label: str) -> FinderEntry:
        """The entry of this label."""
        return next(entry for entry in self.finders if entry.label == label)


@dataclass(frozen=True)
class Transfer:
    """Tickets found on one task and trained on the others.

    Attributes:
        finders: labels.
        density: of the tickets.
    """

    finders: tuple[str, ...]
    density: float


@dataclass(frozen=True)
class Budget:
    """What every cell gets, the same for all.

    Attributes:
        steps: optimizer steps of every training.
        batch_size: examples per step.
        dense_rates: learning rates of full tuning and of weight tickets.
        probe_rate: learning rate of dense trainings that serve finding.
        ticket_rates: learning rates of update tickets. Of several, each cell takes the best on the development set.
        adam_beta2: of AdamW.
        batches: batches that a saliency finder looks at, of `batch_size` examples each.
        partitions: of the data, for COLT.
    """

    steps: int = 100
    batch_size: int = 8
    dense_rates: tuple[float, ...] = (1e-3,)
    probe_rate: float = 1e-3
    ticket_rates: tuple[float, ...] = (1e-2,)
    adam_beta2: float = 0.95
    batches: int = 16
    partitions: int = 2

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "batches", "partitions", "probe_rate"):
            if getattr(self, name) <= 0:
                raise OptionError(f"budget, {name}: {getattr(self, name)}: must be above 0.")
        for name in ("dense_rates", "ticket_rates"):
            if not getattr(self, name) or min(getattr(self, name)) <= 0:
                raise OptionError(f"budget, {name}: {list(getattr(self, name))}: must be rates above 0.")


@dataclass(frozen=True)
class Plan:
    """A comparison.

    Attributes:
        tasks: name to options, `kind` among them.
        tables: what competes.
        replicates: one seed each, of data order, batches and draws.
        budget: what every cell gets.
        transfer: which tickets are tried on other tasks.
    """

    tasks: Mapping[str, Mapping[str, Any]]
    tables: tuple[Table, ...]
    replicates: tuple[int, ...] = (0, 1)
    budget: Budget = Budget()
    transfer: Transfer | None = None

    def __post_init__(self) -> None:
        if not self.tasks or not self.tables:
            raise OptionError("A comparison needs at least one task and one table of finders.")
        twice = next((seed for seed in self.replicates if self.replicates.count(seed) > 1), None)
        if not self.replicates or twice is not None:
            raise OptionError(
                f"replicates: {list(self.replicates)}: give each seed once. Two replicates with the seed {twice} would "
                "be one and the same, and their interval would be a lie."
            )
        for table in self.tables:
            table.granularity()
            for entry in table.finders:
                entry.make(table.kind, 0)
        self._require_transfer()

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of everything in it."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True, default=str).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self), default=str))
        return values

    def _require_transfer(self) -> None:
        if self.transfer is None:
            return
        labels = {entry.label for table in self.tables for entry in table.finders}
        for name in self.transfer.finders:
            if name not in labels:
                raise OptionError(
                    f"transfer, finders: {name!r} stands in no table. Known: {', '.join(sorted(labels))}."
                )
        if len(self.tasks) < 2:
            raise OptionError("transfer needs at least two tasks: a ticket found on one and trained on another.")
        if not any(self.transfer.density in table.densities for table in self.tables):
            raise OptionError(f"transfer, density: {self.transfer.density} is the density of no table.")


def read_plan(source: str | os.PathLike[str] | Mapping[str, Any]) -> Plan:
    """Read a comparison.

    Args:
        source: YAML file, or what one holds: `tasks`, `tables`, and if wanted `replicates`, `budget`, `transfer`.

    Raises:
        OptionError: if the file is missing or no YAML, or an option is unknown (with the nearest), missing or wrong.
        UnknownNameError: if a finder, granularity or kind of task is unknown.
    """
    values = source if isinstance(source, Mapping) else _yaml(Path(source))
    require_known(values, ("tasks", "tables", "replicates", "budget", "transfer"), "The comparison")
    for name in ("tasks", "tables"):
        if not values.get(name):
            raise OptionError(f"The comparison lacks {name!r}.")
    transfer = values.get("transfer")
    if transfer is not None:
        require_known(transfer, ("finders", "density"), "transfer")
        transfer = Transfer(tuple(transfer["finders"]), float(transfer["density"]))
    return Plan(
        tasks={str(name): dict(options) for name, options in values["tasks"].items()},
        tables=tuple(_table(table, number) for number, table in enumerate(values["tables"])),
        replicates=tuple(int(seed) for seed in values.get("replicates", (0, 1))),
        budget=_budget(values.get("budget") or {}),
        transfer=transfer,
    )


def _yaml(path: Path) -> Mapping[str, Any]:
    import yaml

    if not path.is_file():
        raise OptionError(f"There is no configuration file {str(path)!r}.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise OptionError(f"{str(path)!r} is no YAML: {error}") from error
    if not isinstance(values, dict):
        raise OptionError(f"{str(path)!r} must hold the keys tasks and tables.")
    return values


def _budget(values: Mapping[str, Any]) -> Budget:
    known = {field.name: field for field in dataclasses.fields(Budget)}
    require_known(values, known, "budget")
    converted: dict[str, Any] = {}
    for name, value in values.items():
        default = known[name].default
        try:
            if isinstance(default, tuple):
                converted[name] = tuple(float(one) for one in (value if isinstance(value, list) else [value]))
            else:
                converted[name] = float(value) if isinstance(default, float) else int(value)
        except (TypeError, ValueError) as error:
            raise OptionError(f"budget, {name}: {value!r} cannot be read: {error}.") from error
    return Budget(**converted)


def _table(values: Mapping[str, Any], number: int) -> Table:
    what = f"Table {number + 1}"
    require_known(values, ("kind", "units", "densities", "finders", "unit_options"), what)
    for name in ("units", "densities", "finders"):
        if not values.get(name):
            raise OptionError(f"{what} lacks {name!r}.")
    kind = values.get("kind", "update")
    if kind not in ("update", "weight"):
        raise OptionError(f"{what}, kind: {kind!r}: must be update or weight.")
    densities = tuple(float(density) for density in values["densities"])
    if not all(0.0 < density < 1.0 for density in densities):
        raise OptionError(f"{what}, densities: {list(densities)}: each must lie between 0 and 1.")
    finders = [_finder(entry) for entry in values["finders"]]
    labels = [entry.label for entry in finders]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise OptionError(f"{what} has two finders called {twice!r}. Give one of them another label.")
    if not any(FINDERS.get(str(entry.options["finder"])) is Random for entry in finders):
        finders.append(FinderEntry("random", {"finder": "random"}))
    return Table(kind, str(values["units"]), densities, tuple(finders), dict(values.get("unit_options") or {}))


def _finder(entry: str | Mapping[str, Any]) -> FinderEntry:
    if isinstance(entry, str):
        FINDERS.get(entry)
        return FinderEntry(entry, {"finder": entry})
    if "finder" not in entry:
        raise OptionError(f"The finder {dict(entry)} has no name: write `finder: ks`, and its options beside it.")
    name = str(entry["finder"])
    options = {key: value for key, value in entry.items() if key not in ("finder", "label")}
    fields = [field.name for field in dataclasses.fields(FINDERS.get(name))]  # type: ignore[arg-type]
    require_known(options, fields, f"Finder {name!r}")
    return FinderEntry(str(entry.get("label", name)), {"finder": name, **options})
