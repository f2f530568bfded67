"""What is compared: tables, tasks, replicates and a budget, as a person writes them in YAML."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ks_lottery.errors import OptionError
from ks_lottery.evaluation.comparison.table import Table, read_table
from ks_lottery.evaluation.tasks.base import require_known


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
        probe_rate: learning rate of the dense training of all units of an update table, which serves finding. The
            reference "all units" takes it or one of `ticket_rates`, whichever is best on the development set.
        ticket_rates: learning rates of update tickets. Of several, each cell takes the best on the development set.
        adam_beta2: of AdamW.
        batches: batches that a saliency finder looks at, of `batch_size` examples each. A finder that learns a mask
            gets one for each of `steps`, as far as the examples go.
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
        if not 0.0 < self.adam_beta2 < 1.0:
            raise OptionError(f"budget, adam_beta2: {self.adam_beta2}: must lie between 0 and 1.")
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

    Raises:
        OptionError: if there is no task or table, two replicates or tables are the same, a rewind step lies beyond the
            training, or a transfer is not of these tasks and tables.
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
        if min(self.replicates) < 0:
            raise OptionError(f"replicates: {list(self.replicates)}: seeds must be 0 or more.")
        places = [(table.kind, table.units) for table in self.tables]
        for table in self.tables:
            if places.count((table.kind, table.units)) > 1:
                raise OptionError(
                    f"{table.what} stands twice. Put its finders into one table, under labels that differ, or compare "
                    "in two folders."
                )
            self._require_rewind(table)
        self._require_transfer()

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of everything in it."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True, default=str).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self), default=str))
        return values

    def _require_rewind(self, table: Table) -> None:
        for entry in table.finders:
            step = getattr(entry.make(table.kind, 0), "rewind", 0)
            if not 0 <= step < self.budget.steps:
                raise OptionError(
                    f"Finder {entry.label!r}, rewind: {step}: every training has {self.budget.steps} steps (budget, "
                    f"steps), so rewind to a step from 0 (the pretrained weights) to {self.budget.steps - 1}."
                )

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
    values = source if isinstance(source, Mapping) else read_yaml(Path(source))
    require_known(values, ("tasks", "tables", "replicates", "budget", "transfer"), "The comparison")
    for name, form, shape in (("tasks", Mapping, "options by name of the task"), ("tables", list, "a list of tables")):
        if not values.get(name):
            raise OptionError(f"The comparison lacks {name!r}.")
        if not isinstance(values[name], form):
            raise OptionError(f"{name}: {values[name]!r}: must be {shape}.")
    for name, options in values["tasks"].items():
        if not isinstance(options, Mapping):
            raise OptionError(f"tasks, {name}: {options!r}: must hold `kind` and the options of that kind.")
    return Plan(
        tasks={str(name): dict(options) for name, options in values["tasks"].items()},
        tables=tuple(read_table(table, number) for number, table in enumerate(values["tables"])),
        replicates=_replicates(values.get("replicates", [0, 1])),
        budget=read_budget(values.get("budget") or {}),
        transfer=_transfer(values.get("transfer")),
    )


def _replicates(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(seed) is int for seed in values):
        raise OptionError(f"replicates: {values!r}: must be a list of seeds, such as [0, 1, 2].")
    return tuple(values)


def _transfer(values: Any) -> Transfer | None:
    if values is None:
        return None
    if not isinstance(values, Mapping) or not isinstance(values.get("finders"), list) or "density" not in values:
        raise OptionError(f"transfer: {values!r}: must hold `finders`, a list of labels, and `density`.")
    require_known(values, ("finders", "density"), "transfer")
    return Transfer(tuple(map(str, values["finders"])), _number("transfer, density", values["density"], float))


def read_yaml(path: Path) -> Mapping[str, Any]:
    """What a YAML file holds.

    Raises:
        OptionError: if it is missing, no YAML, or no mapping.
    """
    import yaml

    if not path.is_file():
        raise OptionError(f"There is no configuration file {str(path)!r}.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise OptionError(f"{str(path)!r} is no YAML: {error}") from error
    if not isinstance(values, dict):
        raise OptionError(f"{str(path)!r} must hold keys with values, such as `budget:` and its options.")
    return values


def read_budget(values: Any) -> Budget:
    """A budget from what a person wrote.

    Raises:
        OptionError: if an option is unknown or wrong.
    """
    if not isinstance(values, Mapping):
        raise OptionError(f"budget: {values!r}: must hold options by name.")
    known = {field.name: field for field in dataclasses.fields(Budget)}
    require_known(values, known, "budget")
    converted: dict[str, Any] = {}
    for name, value in values.items():
        default, what = known[name].default, f"budget, {name}"
        if isinstance(default, tuple):
            rates = value if isinstance(value, list) else [value]
            converted[name] = tuple(_number(what, rate, float) for rate in rates)
        else:
            converted[name] = _number(what, value, type(default))
    return Budget(**converted)


def _number(what: str, value: Any, kind: type) -> Any:
    """A number of YAML, which reads 1e-3 as a text."""
    try:
        number = kind(value)
    except (TypeError, ValueError) as error:
        raise OptionError(f"{what}: {value!r} is no number.") from error
    if isinstance(value, bool) or (kind is int and number != value):
        raise OptionError(f"{what}: {value!r} is no whole number.")
    return number
