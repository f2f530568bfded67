"""Training a ticket of a comparison, the same way for every cell, and scoring it."""

import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from ks_lottery.checkpoints.reader import Checkpoint, open_checkpoint
from ks_lottery.checkpoints.writer import write_json
from ks_lottery.evaluation.comparison.plan import Budget
from ks_lottery.evaluation.record import CellCost
from ks_lottery.evaluation.tasks.base import Task
from ks_lottery.finders.rounds.runs import Kept, Run
from ks_lottery.ticket.identity import identify
from ks_lottery.ticket.ticket import Ticket
from ks_lottery.training.arguments import probe_arguments
from ks_lottery.training.cost import measure
from ks_lottery.training.run_lock import exclusively
from ks_lottery.training.runs import TrainerRuns, trainer_runs
from ks_lottery.training.sealed import read_sealed, sealed
from ks_lottery.training.tickets import train_ticket


@dataclass(frozen=True)
class Trained:
    """What a training came to.

    Attributes:
        scores: on the test set.
        cost: of the training, without scoring; of all learning rates that were tried together.
        trainable: weights that were trained; of update tickets without a classifier's task head, which trains beside.
    """

    scores: dict[str, float]
    cost: CellCost
    trainable: int


@dataclass(frozen=True)
class Trainings:
    """Trainings on one task with one seed.

    Attributes:
        task: what is trained and scored.
        budget: of the comparison.
        seed: of the data order.
        folder: of what is kept: scores of trainings that were made, of all tasks and seeds.
    """

    task: Task
    budget: Budget
    seed: int
    folder: Path

    def runs(self, folder: Path, rate: float) -> TrainerRuns:
        """Trainings of whole models at one learning rate."""
        return trainer_runs(
            folder, self.task.load_model, self.task.examples, lambda place: self._arguments(place, rate),
            self.task.collator, self.budget.partitions, {"task": self.task.digest},
        )  # fmt: skip

    def untrained(self) -> Trained:
        """The pretrained model as it is."""
        return Trained(self.task.score(self.task.load_model()), CellCost(), 0)

    def whole(self, run: Run, name: str, trainable: int, rates: tuple[float, ...]) -> Trained:
        """Train whole weights, under a mask if the run has one.

        Args:
            run: what to train.
            name: that tells this training from all others of the task and seed.
            trainable: weights that count as trained.
            rates: learning rates to try.
        """

        def train(folder: Path, rate: float) -> Any:
            trained = self.runs(folder, rate).train(run)
            model = self.task.load_model()
            with torch.no_grad():
                for parameter_name, parameter in model.named_parameters():
                    parameter.copy_(trained.rows(parameter_name))
                    trained.release(parameter_name)
            return model

        return self._best(name, rates, train, trainable, self.budget.steps - run.first_step)

    def ticket(
        self, ticket: Ticket, start: Checkpoint | None = None, first_step: int = 0, fresh_head: bool = False
    ) -> Trained:
        """Train a ticket.

        Args:
            ticket: an update ticket trains through its adapter, a weight ticket as a masked model.
            start: what the ticket's weights begin with; None: the base model.
            first_step: optimizer steps that `start` has behind it.
            fresh_head: whether a classifier begins with this task's own new head and not with that of `start`.

        Raises:
            TicketError: if the ticket belongs to another base model.
        """
        own = "-own-head" if fresh_head and start is not None else ""
        name = f"{ticket.fingerprint}{'' if start is None else f'-{Path(start.name).name}-{first_step}{own}'}"
        if ticket.kind == "weight" or start is not None:
            base = open_checkpoint(self.task.load_model())
            ticket.base.require_same(identify(base, ticket.base.shapes))
            groups = tuple(selection.group for selection in ticket.selections.values())
            kept = Kept(groups, tuple(ticket.indices[group.name] for group in groups), ticket.kind)
            trains = None if ticket.kind == "weight" else tuple(ticket.base.shapes)
            rates = self.budget.dense_rates if ticket.kind == "weight" else self.budget.ticket_rates
            run, trainable = Run(start, kept, trains, first_step, head=base if own else None), _trainable(ticket, base)
            del base  # a whole model
            return self.whole(run, name, trainable, rates)

        def train(folder: Path, rate: float) -> Any:
            return train_ticket(
                self.task.load_model(), ticket, self.task.examples, self._arguments(folder / "trainer", rate),
                self.task.collator,
            )  # fmt: skip

        return self._best(name, self.budget.ticket_rates, train, ticket.num_trainable(), self.budget.steps)

    def _best(
        self, name: str, rates: tuple[float, ...], train: Callable[[Path, float], Any], trainable: int, steps: int
    ) -> Trained:
        """Train with each rate, choose on the development set, score on the test set; or read what was made before."""
        name = f"{name}-{self.task.digest[:20]}-{self.seed}"
        place, work = self.folder / f"{name}.json", self.folder / f".{name}"
        with exclusively(place):
            if place.is_file():
                kept = read_sealed(place, "Delete it: the training is made again.")
                return Trained(kept["scores"], CellCost(**kept["cost"]), kept["trainable"])
            best: tuple[float, dict[str, float]] | None = None
            seconds, peak = 0.0, 0
            for rate in rates:
                shutil.rmtree(work, ignore_errors=True)  # of a worker that was killed
                try:
                    with measure() as spent:
                        model = train(work, rate)
                finally:
                    shutil.rmtree(work, ignore_errors=True)
                seconds, peak = seconds + spent.seconds, max(peak, spent.peak_bytes)
                chosen_by = self.task.score(model, "dev")[self.task.metric] if len(rates) > 1 else 0.0
                if best is None or _rank(chosen_by) > _rank(best[0]):
                    best = chosen_by, self.task.score(model)
            assert best is not None
            examples = len(rates) * steps * self.budget.batch_size
            cost = CellCost(forward=examples, backward=examples, seconds=seconds, peak_bytes=peak)
            write_json(place, sealed({"scores": best[1], "cost": asdict(cost), "trainable": trainable}))
        return Trained(best[1], cost, trainable)

    def _arguments(self, folder: Path, rate: float) -> TrainingArguments:
        return probe_arguments(
            folder,
            learning_rate=rate,
            max_steps=self.budget.steps,
            per_device_train_batch_size=self.budget.batch_size,
            adam_beta2=self.budget.adam_beta2,
            seed=self.seed,
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            dataloader_drop_last=True,
        )


def _rank(score: float) -> float:
    """A training that diverged to NaN loses against every other one."""
    return -math.inf if math.isnan(score) else score


def _trainable(ticket: Ticket, base: Checkpoint) -> int:
    """Weights that a masked model trains: of a weight ticket those of its units, and all that no unit owns."""
    if ticket.kind == "update":
        return ticket.num_trainable()
    owned = sum(
        selection.group.num_units * selection.group.weights_per_unit(ticket.base.shapes)
        for selection in ticket.selections.values()
    )
    return sum(math.prod(base.shape(name)) for name in base.names()) - owned + ticket.num_trainable()
