"""The tickets of one finder on one task: all densities and their controls, found once and kept."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from typing_extensions import override

from ks_lottery.checkpoints.reader import Checkpoint, open_checkpoint
from ks_lottery.checkpoints.writer import atomic_folder, write_json
from ks_lottery.errors import TicketError
from ks_lottery.evaluation.comparison.evidence import evidence_for
from ks_lottery.evaluation.comparison.table import FinderEntry, Table
from ks_lottery.evaluation.comparison.training import Trainings
from ks_lottery.evaluation.record import CellCost
from ks_lottery.evaluation.sanity import inverted_like, reinitialised
from ks_lottery.finders.base import Evidence, Finder, Shift, UnitScores
from ks_lottery.finders.masks.frozen import Frozen
from ks_lottery.finders.masks.supernet_search import SupernetRecord, SupernetSearch
from ks_lottery.finders.passes import Passes
from ks_lottery.finders.rounds.runs import GateRecord, GateSearch, Run, Runs
from ks_lottery.finders.saliency.batches import Batches
from ks_lottery.finders.search import score_units, select_ticket
from ks_lottery.finders.select import Density
from ks_lottery.ticket.controls import frequency_like, shuffled_like
from ks_lottery.ticket.ticket import Ticket
from ks_lottery.training.cost import measure
from ks_lottery.training.probe_folders import write_whole_checkpoint
from ks_lottery.training.run_lock import exclusively
from ks_lottery.training.runs import TrainerRuns
from ks_lottery.training.sealed import read_sealed, sealed
from ks_lottery.units.slab import UnitGroup

T = TypeVar("T")
TICKET = ""
"""The key of a finder's own ticket, beside those of its controls."""


@dataclass(frozen=True)
class Found:
    """The tickets of a finder, and what they cost.

    Attributes:
        folder: where they are kept.
        cost: of finding, for all densities together.
    """

    folder: Path
    cost: CellCost

    def ticket(self, density: float, control: str = TICKET) -> Ticket:
        """The ticket of a density, or one of its controls.

        Raises:
            TicketError: with the reason, where it could not be made.
        """
        place = self.folder / _place(density, control)
        if not place.is_dir():
            reasons = _read_found(self.folder)["missing"]
            if _place(density, control) not in reasons:
                raise TicketError(
                    f"{str(place)!r} is missing, and was there when the search ended. Delete the folder "
                    f"{str(self.folder)!r}: it is made again."
                )
            raise TicketError(reasons[_place(density, control)])
        return Ticket.load(place)


@dataclass(frozen=True)
class Search:
    """Finding on one task, for one table and replicate.

    Attributes:
        table: what is found.
        trainings: of the task that it is found on, at this replicate's data order.
        folder: of the comparison.
    """

    table: Table
    trainings: Trainings
    folder: Path

    @cached_property
    def runs(self) -> TrainerRuns:
        """Trainings that serve finding; the base model is loaded when they are asked for."""
        budget = self.trainings.budget
        rate = budget.probe_rate if self.table.kind == "update" else budget.dense_rates[0]
        return self.trainings.runs(self.folder / "runs", rate)

    def find(self, entry: FinderEntry) -> Found:
        """Find, or read what an earlier call found; errors as `find_ticket`."""
        content = {
            "table": [self.table.kind, self.table.units, dict(self.table.unit_options), self.table.densities],
            "finder": dict(entry.options),
            "task": self.trainings.task.digest,
            "budget": asdict(self.trainings.budget),
            "seed": self.trainings.seed,
        }
        mark = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:20]
        place = self.folder / "tickets" / mark
        if not place.is_dir():
            with exclusively(place):
                if not place.is_dir():
                    self._make(entry, place)
        return Found(place, CellCost(**_read_found(place)["cost"]))

    def reinitialised(self, ticket: Ticket) -> Checkpoint:
        """The base model with the values of the ticket's tensors in other places; one for a task and replicate."""
        mark = f"{ticket.base.digest[:20]}-{self.trainings.task.digest[:20]}-{self.trainings.seed}"
        place = self.folder / "runs" / f"reinitialised-{mark}"
        if not place.is_dir():
            with exclusively(place):
                if not place.is_dir():
                    model = reinitialised(self.trainings.task.load_model(), self.groups(), self.trainings.seed)
                    write_whole_checkpoint(place, model, model.config, list(dict(model.named_parameters())))
        return open_checkpoint(place)

    def groups(self) -> tuple[UnitGroup, ...]:
        """The units of the table."""
        return tuple(self.table.granularity().groups(self.runs.base.layout()))

    def _make(self, entry: FinderEntry, place: Path) -> None:
        missing, cost = {}, CellCost()
        after = None
        # A mask is learnt at a density, so each density is a search of its own.
        searches = [(one,) for one in self.table.densities] if entry.learns_density else [self.table.densities]
        with atomic_folder(place) as folder:
            for densities in searches:
                method = entry.make(self.table.kind, self.trainings.seed, densities[0])
                with measure() as spent:
                    scores, evidence, passes, in_trainings = self._score(method, after)
                # A training counts with the time that it took when it was made, here or for another finder.
                seconds = spent.seconds - in_trainings + passes.seconds
                cost = cost.plus(passes.forward, passes.backward, seconds, spent.peak_bytes)
                after = evidence.tuned if isinstance(evidence, Frozen) else None
                for density in densities:
                    for name, made in self._tickets(entry, method, scores, evidence, density).items():
                        if isinstance(made, Ticket):
                            made.save(folder / _place(density, name))
                        else:
                            missing[_place(density, name)] = made
            write_json(
                folder / "found.json",
                sealed({"finder": entry.label, "cost": asdict(cost), "missing": missing, "of": _of(self)}),
            )

    def _score(self, method: Finder, after: Checkpoint | None) -> tuple[list[UnitScores], Evidence, Passes, float]:
        """Scores of all units, the evidence, what trainings and batches cost, and seconds of this call in trainings.

        Args:
            method: the finder.
            after: the end of a probe that an earlier search of the finder had trained, and counted.
        """
        passes = Passes()
        runs = _Clocked(self.runs.base, self.runs.steps, self.runs.parts, passes, replace(self.runs, passes=passes))
        evidence = evidence_for(method, self.trainings, runs, self.groups(), self.table.kind, after)
        granularity = self.table.granularity()
        if isinstance(evidence, Shift):
            scores = score_units(evidence.before, evidence.after, granularity, method)
        else:
            scores = score_units(runs.base, None, granularity, method, evidence=evidence)
        if isinstance(evidence, Batches):
            passes.count(evidence.passes.forward, evidence.passes.backward)
        return scores, evidence, passes, sum(runs.spent)

    def _tickets(
        self, entry: FinderEntry, method: Finder, scores: Sequence[UnitScores], evidence: Evidence, density: float
    ) -> dict[str, Ticket | str]:
        """The ticket of a density and its controls by name; a text says why one cannot be made.

        Every finder has a shuffle of its own, so that a lucky draw is the luck of one.
        """
        mark = f"{entry.label} {density:g} {self.trainings.seed}"
        seed = int.from_bytes(hashlib.sha256(mark.encode()).digest()[:4], "big")
        among = self.candidates()
        chosen = among if method.needs is Evidence else None
        after = evidence.after if isinstance(evidence, Shift) else None
        other = None if isinstance(evidence, Shift) else evidence
        units, cut = self.table.granularity(), Density(density)
        try:
            ticket = select_ticket(scores, self.runs.base, after, units, method, cut, chosen, evidence=other)
        except TicketError as error:
            return dict.fromkeys((TICKET, "shuffled", "inverted", "frequency"), str(error))
        makers: Mapping[str, Any] = {
            "shuffled": lambda: shuffled_like(ticket, seed, among=among),
            "inverted": lambda: inverted_like(ticket, scores, _by_group(ticket, among)),
            "frequency": lambda: frequency_like(ticket, self.trainings.task.token_counts()),
        }
        made: dict[str, Ticket | str] = {TICKET: ticket}
        for name, make in makers.items():
            if name == "frequency" and self.table.units != "token_rows":
                continue
            try:
                made[name] = make()
            except TicketError as error:
                made[name] = str(error)
        return made

    def candidates(self) -> np.ndarray | None:
        """Units that chance may draw: of token rows those that a training text uses, since no other can learn."""
        if self.table.units != "token_rows":
            return None
        used: np.ndarray = np.flatnonzero(self.trainings.task.token_counts())
        return used


@dataclass(frozen=True)
class _Clocked(Runs):
    """Trainings by others, with the time that asking for each took.

    Attributes:
        by: who trains.
        spent: seconds of each request, whether it was trained here, waited for or read.
    """

    by: TrainerRuns | None = None
    spent: list[float] = field(default_factory=list, compare=False)

    @override
    def train(self, run: Run) -> Checkpoint:
        return self._clocked(lambda trainer: trainer.train(run))

    @override
    def train_gates(self, search: GateSearch) -> GateRecord:
        return self._clocked(lambda trainer: trainer.train_gates(search))

    @override
    def train_supernet(self, search: SupernetSearch) -> SupernetRecord:
        return self._clocked(lambda trainer: trainer.train_supernet(search))

    def _clocked(self, ask: Callable[[TrainerRuns], T]) -> T:
        assert self.by is not None
        begin = time.perf_counter()
        try:
            return ask(self.by)
        finally:
            self.spent.append(time.perf_counter() - begin)


def _by_group(ticket: Ticket, among: np.ndarray | None) -> Mapping[str, np.ndarray] | None:
    return None if among is None else dict.fromkeys(ticket.selections, among)


def _read_found(place: Path) -> dict[str, Any]:
    """What a search wrote beside its tickets."""
    return read_sealed(place / "found.json", f"Delete the folder {str(place)!r}: it is made again.")


def _place(density: float, control: str) -> str:
    return f"{density:g}-{control or 'ticket'}"


def _of(search: Search) -> dict[str, Any]:
    trainings, table = search.trainings, search.table
    return {"task": trainings.task.name, "units": table.units, "kind": table.kind, "seed": trainings.seed}
