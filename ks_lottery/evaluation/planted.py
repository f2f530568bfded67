"""Every registered finder on every planted ticket: the one table in which finders have a right answer."""

import dataclasses
import hashlib
import json
import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ks_lottery.checkpoints.writer import write_json
from ks_lottery.errors import DataError, LotteryError, OptionError
from ks_lottery.evaluation.comparison.finding import Search
from ks_lottery.evaluation.comparison.table import FinderEntry, Table
from ks_lottery.evaluation.comparison.training import Trainings
from ks_lottery.evaluation.planted_cases import CASES, Case
from ks_lottery.evaluation.tasks.planted import Planted, PlantedTask
from ks_lottery.finders.base import FINDERS
from ks_lottery.ticket.ticket import Ticket

PLANTED, NOBODY = "planted ticket", "no finder"
_CURVE, _LEARNT_CURVE = (0.5, 2.0, 4.0, 8.0), (4.0,)  # times the planted density; a mask is learnt anew for each
_OPTIONS: dict[str, dict[str, Any]] = {
    "bert_rounds": {"rounds": 4, "drop": 0.2},
    "colt": {"drop": 0.6},
    "movement": {"learning_rate": 1e-3},
}
"""What a finder needs beside its defaults: rounds that end in time, and a step of stochastic gradient descent."""


@dataclass(frozen=True, kw_only=True)
class PlantedRow:
    """One finder on one planted ticket.

    Attributes:
        finder: registered name, or "planted ticket".
        case: name of the case.
        kind: of ticket.
        units: granularity.
        seed: of weights, planting, data, and of the finder.
        count: planted units, and units that the finder may choose.
        total: units that there are.
        precision: share of the chosen units that were planted.
        recall: share of the planted units that were chosen.
        iou: chosen and planted units over chosen or planted ones.
        untrained: loss with what is planted at the chosen units, and without training.
        trained: loss after the ticket was trained.
        planted_trained: loss after the planted ticket was trained.
        seconds: of finding.
        curve: (density, precision, recall) at several densities.
        looks_at: name of the class of evidence.
        reason: why there is no ticket; empty where there is one.
        failed: whether that is an accident, which the next run tries again, and not a refusal.
    """

    finder: str
    case: str
    kind: str
    units: str
    seed: int
    count: int
    total: int
    precision: float | None = None
    recall: float | None = None
    iou: float | None = None
    untrained: float | None = None
    trained: float | None = None
    planted_trained: float | None = None
    seconds: float | None = None
    curve: Sequence[Sequence[float]] = ()
    looks_at: str = ""
    reason: str = ""
    failed: bool = False

    @property
    def density(self) -> float:
        """Planted share of the units."""
        return self.count / self.total

    @property
    def ratio(self) -> float | None:
        """Loss after training over that of the planted ticket."""
        if self.trained is None or not self.planted_trained:
            return None
        return self.trained / self.planted_trained

    def to_dict(self) -> dict[str, Any]:
        """JSON values, with density and ratio."""
        return {**dataclasses.asdict(self), "density": self.density, "ratio": self.ratio}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "PlantedRow":
        """Read what `to_dict` wrote.

        Raises:
            DataError: if a field is unknown or missing.
        """
        try:
            given = {name: value for name, value in data.items() if name not in ("density", "ratio")}
            return cls(**{**given, "curve": tuple(map(tuple, given.get("curve", ())))})
        except TypeError as error:
            raise DataError(f"This is no row of the planted benchmark ({error}): {dict(data)}.") from error


@dataclass
class PlantedBench:
    """The benchmark in a folder; a killed run goes on after its last whole row.

    Attributes:
        folder: of rows, tickets and trainings.
        cases: what is planted.
        finders: registered names; all of them if None.
        seeds: each plants anew.
        say: takes a line about each row that is made.

    Raises:
        OptionError: if there is no case or seed, or a seed is negative.
        UnknownNameError: if a finder is not registered.
    """

    folder: Path
    cases: Sequence[Case] = CASES
    finders: Sequence[str] | None = None
    seeds: Sequence[int] = (0,)
    say: Callable[[str], None] = print
    _tasks: dict[str, PlantedTask] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        from transformers.utils import logging

        logging.disable_progress_bar()
        if not self.cases or not self.seeds or min(self.seeds) < 0:
            raise OptionError(f"{len(self.cases)} cases, seeds {list(self.seeds)}: give at least one of both, from 0.")
        self.folder = Path(self.folder)
        self.finders = FINDERS.names() if self.finders is None else tuple(self.finders)
        for name in self.finders:
            FINDERS.get(name)

    @cached_property
    def places(self) -> list[tuple[Case, int, str]]:
        """(case, seed, finder) of every row; the planted ticket first."""
        assert self.finders is not None
        return [(case, seed, name) for case in self.cases for seed in self.seeds for name in (PLANTED, *self.finders)]

    def run(self, shard: tuple[int, int] = (0, 1)) -> list[PlantedRow]:
        """Make the rows that are not there.

        Args:
            shard: (i, n): make those of the places whose number is i modulo n alone.

        Returns:
            all rows that are there then, in the order of `places`.

        Raises:
            UnitError, OptionError: as planting.
        """
        for name in ("runs", "tickets", "trained", "rows"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        mine = [place for number, place in enumerate(self.places) if number % shard[1] == shard[0]]
        wanted = [place for place in mine if (row := self._kept(*place)) is None or row.failed]
        for number, (case, seed, name) in enumerate(wanted, 1):
            row = self._make(case, seed, name)
            write_json(self._file(case, seed, name), row.to_dict())
            found = row.reason if row.precision is None else f"precision {row.precision:.3f}"
            self.say(f"[{number}/{len(wanted)}] {case.name}, seed {seed}, {name}: {found}")
        return self.rows()

    def rows(self) -> list[PlantedRow]:
        """The rows that are there, in the order of `places`; errors as `PlantedRow.from_dict`."""
        return [row for place in self.places if (row := self._kept(*place)) is not None]

    def _kept(self, case: Case, seed: int, name: str) -> PlantedRow | None:
        file = self._file(case, seed, name)
        return PlantedRow.from_dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None

    def _file(self, case: Case, seed: int, name: str) -> Path:
        content = {**case.to_dict(), "seed": seed, "finder": name, "options": _OPTIONS.get(name, {})}
        mark = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
        return self.folder / "rows" / f"{case.name.replace(' ', '-')}-{seed}-{name.replace(' ', '-')}-{mark}.json"

    def _make(self, case: Case, seed: int, name: str) -> PlantedRow:
        task = self._task(case, seed)
        truth = task.truth
        about: dict[str, Any] = {
            "finder": name, "case": case.name, "kind": truth.kind, "units": truth.granularity, "seed": seed,
            "count": len(truth), "total": _total(truth),
        }  # fmt: skip
        trainings = Trainings(task, case.budget, seed, self.folder / "trained")
        if name == PLANTED:
            perfect = dict.fromkeys(("precision", "recall", "iou"), 1.0)
            return PlantedRow(**{**about, **perfect, **_losses(trainings, truth)})
        about["looks_at"] = FINDERS.get(name).needs.__name__
        begin = time.perf_counter()
        try:
            results = self._results(name, trainings)
        except LotteryError as error:
            return PlantedRow(**about, reason=_line(error), seconds=time.perf_counter() - begin)
        except Exception as error:
            self.say(traceback.format_exc().rstrip())
            return PlantedRow(**about, reason=f"{type(error).__name__}: {_line(error)}", failed=True)
        return PlantedRow(**about, **results)

    def _results(self, name: str, trainings: Trainings) -> dict[str, Any]:
        """Everything that is measured of a finder; errors as the finder's."""
        task = trainings.task
        assert isinstance(task, PlantedTask)
        truth, density = task.truth, len(task.truth) / _total(task.truth)
        entry = _entry(name, density)
        factors = _LEARNT_CURVE if entry.learns_density else _CURVE
        others = [share for factor in factors if (share := density * factor) <= 0.5]
        densities = tuple(dict.fromkeys((density, *others)))
        options = {} if "only" not in task.units.__dataclass_fields__ else {"only": task.units.only}  # type: ignore[attr-defined]
        table = Table(truth.kind, truth.granularity, densities, (entry,), options)
        found = Search(table, trainings, self.folder).find(entry)
        ticket = found.ticket(density)
        hits = _hits(ticket, truth)
        return {
            "precision": hits / len(ticket), "recall": hits / len(truth),
            "iou": hits / (len(ticket) + len(truth) - hits), **_losses(trainings, ticket),
            "seconds": found.cost.seconds, "curve": tuple(sorted(_curve(found.ticket, densities, truth))),
        }  # fmt: skip

    def _task(self, case: Case, seed: int) -> PlantedTask:
        key = json.dumps([case.to_dict(), seed], sort_keys=True)
        if key not in self._tasks:
            self._tasks.clear()  # one at a time is in memory
            self._tasks[key] = Planted(**{**case.task, "seed": seed}).task(case.name)
        return self._tasks[key]


def _entry(name: str, density: float) -> FinderEntry:
    """A finder with the options that the planted density demands; the search sets the density that one learns."""
    method = FINDERS.get(name)
    options = {"finder": name, **_OPTIONS.get(name, {})}
    fields = {option.name for option in dataclasses.fields(method)}  # type: ignore[arg-type]
    if "density" in fields and not getattr(method, "learns_density", False):
        options["density"] = density
    return FinderEntry(name, options)


def _losses(trainings: Trainings, ticket: Ticket) -> dict[str, float]:
    """Losses without training and with it, beside that of the planted ticket with it.

    Raises:
        DataError: if the training diverged.
    """
    task = trainings.task
    assert isinstance(task, PlantedTask)
    losses = {
        "untrained": task.score(task.holding(ticket))["loss"],
        "trained": trainings.ticket(ticket).scores["loss"],
        "planted_trained": trainings.ticket(task.truth).scores["loss"],
    }
    wrong = {name: loss for name, loss in losses.items() if not math.isfinite(loss)}
    if wrong:
        raise DataError(f"Losses of the ticket are not finite: {wrong}. The training diverged; lower its rate.")
    return losses


def _curve(
    ticket_at: Callable[[float], Ticket], densities: Sequence[float], truth: Ticket
) -> Iterator[tuple[float, float, float]]:
    """(density, precision, recall) where the finder has a ticket: of fewer units than it can tell apart it has none."""
    for density in densities:
        try:
            ticket = ticket_at(density)
        except LotteryError:
            continue
        hits = _hits(ticket, truth)
        yield len(ticket) / _total(truth), hits / len(ticket), hits / len(truth)


def _hits(ticket: Ticket, truth: Ticket) -> int:
    truth.same_units(ticket)
    return sum(len(np.intersect1d(units, truth.indices[name])) for name, units in ticket.indices.items())


def _total(ticket: Ticket) -> int:
    return sum(selection.group.num_units for selection in ticket.selections.values())


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
