"""A fair comparison of finders: the same base weights, data order and number of weights in every cell, and controls."""

import math
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ks_lottery.checkpoints.reader import Checkpoint
from ks_lottery.errors import DataError, LotteryError, OptionError
from ks_lottery.evaluation.comparison.cells import Cell, cells_of
from ks_lottery.evaluation.comparison.finding import TICKET, Found, Search
from ks_lottery.evaluation.comparison.fit import require_fit
from ks_lottery.evaluation.comparison.plan import Plan
from ks_lottery.evaluation.comparison.store import Store
from ks_lottery.evaluation.comparison.table import (
    ALL_UNITS,
    CONTROLS,
    FREQUENCY,
    FULL_TUNING,
    NO_TUNING,
    PERMUTED,
    REINITIALISED,
)
from ks_lottery.evaluation.comparison.training import Trained, Trainings
from ks_lottery.evaluation.record import Record
from ks_lottery.evaluation.tasks.base import Task, make_task
from ks_lottery.evaluation.tasks.permuted import PermutedTask
from ks_lottery.finders.rounds.levels import dense_run
from ks_lottery.ticket.ticket import Ticket

_VALUE_BYTES = 4


@dataclass
class Comparison:
    """A comparison in a folder, which may be shared by several workers; a killed one goes on where it stopped.

    Attributes:
        plan: what is compared.
        folder: of results, tickets and trainings.
        shard: (i, n): this worker makes the cells whose number is i modulo n.
        tasks: by name, where they are not to be made from the plan.
        say: takes a line about each finished cell.

    Raises:
        OptionError: if the folder holds another comparison, or the shard does not exist.
    """

    plan: Plan
    folder: Path
    shard: tuple[int, int] = (0, 1)
    tasks: Mapping[str, Task] = field(default_factory=dict)
    say: Callable[[str], None] = print

    def __post_init__(self) -> None:
        from transformers.utils import logging

        logging.disable_progress_bar()  # one bar per loaded copy, of which a comparison has hundreds
        index, count = self.shard
        if not 0 <= index < count:
            raise OptionError(f"Shard {index}/{count} does not exist: count from 0, so the last one is {count - 1}.")
        self.folder = Path(self.folder)
        self.store = Store(self.folder, self.plan, f"{index}-of-{count}")
        self.tasks = {
            name: self.tasks[name] if name in self.tasks else make_task(name, options)
            for name, options in self.plan.tasks.items()
        }
        for name in ("runs", "tickets", "trained"):
            (self.folder / name).mkdir(exist_ok=True)

    def require_fit(self) -> None:
        """Check that the tasks are large enough for the plan; errors as `comparison.fit.require_fit`."""
        require_fit(self.plan, self.tasks)

    def run(self) -> list[Record]:
        """Make all cells of this shard that are not finished.

        A cell that fails is recorded with its error, and the rest goes on; the next call tries it again.

        Returns:
            the records of all workers.

        Raises:
            DataError, OptionError, UnitError: as `require_fit`, before the first cell.
        """
        index, count = self.shard
        finished = self.store.finished()
        mine = [
            (cell, mark)
            for number, (cell, mark) in enumerate(self.cells)
            if number % count == index and mark not in finished
        ]
        if mine:
            _require_one_gpu(torch.cuda.device_count())
            self.require_fit()
        for number, (cell, mark) in enumerate(mine, 1):
            begin = time.perf_counter()
            record = self._make(cell, mark)
            self.store.append(record)
            outcome = record.error or f"{self.tasks[cell.task].metric} {record.score:.4g}"
            at = "" if cell.density is None else f" at {cell.density:g}"
            self.say(
                f"[{number}/{len(mine)}] {cell.task}, {cell.method}{at}, replicate {cell.replicate}: {outcome} "
                f"({time.perf_counter() - begin:.1f} s)"
            )
        return self.records()

    def records(self) -> list[Record]:
        """The cells made so far, in the order of the plan."""
        order = {mark: number for number, (_, mark) in enumerate(self.cells)}
        return sorted(
            (record for record in self.store.records() if record.cell in order), key=lambda one: order[one.cell]
        )

    def is_complete(self, failed_are_done: bool = True) -> bool:
        """Whether every cell was made; a failed one counts as made if `failed_are_done`."""
        made = {record.cell for record in self.store.records() if failed_are_done or not record.error}
        return {mark for _, mark in self.cells} <= made

    def meta(self) -> dict[str, Any]:
        """What all cells have in common, for the report."""
        budget = self.plan.budget
        return {
            "tasks": ", ".join(f"{name} ({len(task.examples)} training examples)" for name, task in self.tasks.items()),
            "steps of every training": budget.steps,
            "examples per step": budget.batch_size,
            "learning rates": f"dense {_listed(budget.dense_rates)}, probe {budget.probe_rate:g}, "
            f"update tickets {_listed(budget.ticket_rates)}",
            "AdamW's beta2": budget.adam_beta2,
            "replicates": ", ".join(map(str, self.plan.replicates)),
            "workers": len(list((self.folder / "results").glob("*.jsonl"))),
            "torch": torch.__version__,
        }

    def ticket(self, cell: Cell) -> Ticket:
        """The ticket of a cell; errors as the finder's."""
        return self._ticket(cell, self.search(cell))[1]

    def search(self, cell: Cell) -> Search:
        """Finding for the table, replicate and task that the ticket of a cell comes from."""
        trainings = self._trainings(cell.found_on, cell.replicate)
        if cell.control == PERMUTED:
            trainings = replace(trainings, task=PermutedTask(trainings.task, cell.replicate))
        return Search(self.plan.tables[cell.table], trainings, self.folder)

    @cached_property
    def cells(self) -> list[tuple[Cell, str]]:
        """Every cell with its fingerprint."""
        digests = {name: task.digest for name, task in self.tasks.items()}
        return [(cell, cell.fingerprint(self.plan, digests)) for cell in cells_of(self.plan)]

    def _make(self, cell: Cell, mark: str) -> Record:
        try:
            if cell.role == "reference":
                return self._finished(cell, mark, self._reference(cell))
            search = self.search(cell)
            found, ticket = self._ticket(cell, search)
            start, first_step = self._start(cell, ticket)
            elsewhere = cell.found_on != cell.task
            trained = self._trainings(cell.task, cell.replicate).ticket(ticket, start, first_step, elsewhere)
            return self._finished(cell, mark, trained, ticket, found)
        except Exception as error:
            if not isinstance(error, LotteryError):
                self.say(traceback.format_exc().rstrip())
            return cell.record(self.plan, mark, error=f"{type(error).__name__}: {' '.join(str(error).split())}")

    def _finished(
        self, cell: Cell, mark: str, trained: Trained, ticket: Ticket | None = None, found: Found | None = None
    ) -> Record:
        score = trained.scores[self.tasks[cell.task].metric]
        if not math.isfinite(score):
            raise DataError(f"The score is {score}: the training diverged. Lower the learning rate.")
        return cell.record(
            self.plan, mark, realised=None if ticket is None else ticket.density(), trainable=trained.trainable,
            score=score, scores=trained.scores, training=trained.cost,
            ticket_bytes=_VALUE_BYTES * trained.trainable, ticket="" if ticket is None else ticket.fingerprint,
            **({} if found is None else {"finding": found.cost}),
        )  # fmt: skip

    def _reference(self, cell: Cell) -> Trained:
        trainings = self._trainings(cell.task, cell.replicate)
        if cell.method == NO_TUNING:
            return trainings.untrained()
        search = self.search(cell)
        base = search.runs.base
        if cell.method == ALL_UNITS:
            run = dense_run(search.groups(), "update")
            sizes = sum(_sizes(base, run.trains))
            budget = self.plan.budget
            rates = tuple(dict.fromkeys((budget.probe_rate, *budget.ticket_rates)))
            return trainings.whole(run, f"all-{search.table.units}", sizes, rates)
        assert cell.method == FULL_TUNING
        sizes = sum(_sizes(base, base.names()))
        return trainings.whole(dense_run(search.groups(), "weight"), "full", sizes, self.plan.budget.dense_rates)

    def _ticket(self, cell: Cell, search: Search) -> tuple[Found, Ticket]:
        """The ticket of a cell: of a finder, of one of its controls, or of the most frequent rows."""
        assert cell.density is not None
        table = search.table
        if cell.method == FREQUENCY:
            drawn = next(entry for entry in table.finders if entry.is_chance)
            found = search.find(drawn)
            return found, found.ticket(cell.density, FREQUENCY)
        found = search.find(table.finder(cell.of or cell.method))
        drawn_from_it = cell.of and cell.control in CONTROLS
        return found, found.ticket(cell.density, cell.control if drawn_from_it else TICKET)

    def _start(self, cell: Cell, ticket: Ticket) -> tuple[Checkpoint | None, int]:
        """What a ticket of repeated training begins with; its controls begin as it does, but for one."""
        search = self.search(replace(cell, control=""))
        if cell.method == FREQUENCY:
            return None, 0
        if cell.control == REINITIALISED:
            return search.reinitialised(ticket), 0
        method = search.table.finder(cell.of or cell.method).make(search.table.kind, cell.replicate)
        start = getattr(method, "start", None)
        if start is None:
            return None, 0
        begin: tuple[Checkpoint | None, int] = start(search.groups(), search.runs, cell.density)
        return begin

    def _trainings(self, task: str, seed: int) -> Trainings:
        return Trainings(self.tasks[task], self.plan.budget, seed, self.folder / "trained")


def _require_one_gpu(count: int) -> None:
    if count > 1:
        raise OptionError(
            f"This process sees {count} GPUs, and a Trainer would share each batch out among them and take {count} "
            "times as many examples as the budget says. Set CUDA_VISIBLE_DEVICES to one, and run one shard per GPU."
        )


def _listed(rates: Sequence[float]) -> str:
    return ", ".join(f"{rate:g}" for rate in rates)


def _sizes(base: Checkpoint, names: Any) -> Any:
    return (math.prod(base.shape(name)) for name in names or ())
