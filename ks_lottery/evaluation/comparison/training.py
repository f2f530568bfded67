"""Training a ticket of a comparison, the same way for every cell, and scoring it."""

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from ks_lottery.checkpoints.reader import Checkpoint
from ks_lottery.checkpoints.writer import write_json
from ks_lottery.evaluation.comparison.plan import Budget
from ks_lottery.evaluation.record import CellCost
from ks_lottery.evaluation.tasks.base import Task
from ks_lottery.finders.rounds.runs import Kept, Run
from ks_lottery.ticket.ticket import Ticket
from ks_lottery.training.arguments import probe_arguments
from ks_lottery.training.cost import measure
from ks_lottery.training.runs import TrainerRuns, exclusively, trainer_runs
from ks_lottery.training.tickets import train_ticket


@dataclass(frozen=True)
class Trained:
    """What a training came to.

    Attributes:
        scores: on the test set.
        cost: of the training; of all learning rates that were tried together.
        trainable: weights that were trained.
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
        folder: of what is kept: scores of trainings that were made.
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

    def whole(self, run: Run, name: str, trainable: int) -> Trained:
        """Train whole weights, under a mask if the run has one, with each dense rate.

        Args:
            run: what to train.
            name: that tells this training from all others of the task and seed.
            trainable: weights that count as trained.
        """

        def train(folder: Path, rate: float) -> Any:
            runs = self.runs(folder, rate)
            trained = runs.train(run)
            model = self.task.load_model()
            with torch.no_grad():
                for parameter_name, parameter in model.named_parameters():
                    parameter.copy_(trained.rows(parameter_name))
                    trained.release(parameter_name)
            return model, trainable

        return self._best(name, self.budget.dense_rates, train)

    def ticket(self, ticket: Ticket, start: Checkpoint | None = None, first_step: int = 0) -> Trained:
        """Train a ticket.

        Args:
            ticket: an update ticket trains through its adapter, a weight ticket as a masked model.
            start: what the ticket's weights begin with; None: the base model.
            first_step: optimizer steps that `start` has behind it.
        """
        name = f"{ticket.fingerprint}{'' if start is None else f'-{Path(start.name).name}-{first_step}'}"
        if ticket.kind == "weight" or start is not None:
            groups = tuple(selection.group for selection in ticket.selections.values())
            kept = Kept(groups, tuple(ticket.indices[group.name] for group in groups), ticket.kind)
            trains = None if ticket.kind == "weight" else tuple(ticket.base.shapes)
            return self.whole(Run(start, kept, trains, first_step), name, ticket.num_trainable())

        def train(folder: Path, rate: float) -> Any:
            model = train_ticket(
                self.task.load_model(), ticket, self.task.examples, self._arguments(folder / "trainer", rate),
                self.task.collator,
            )  # fmt: skip
            return model, ticket.num_trainable()

        return self._best(name, self.budget.ticket_rates, train)

    def _best(self, name: str, rates: tuple[float, ...], train: Callable[[Path, float], Any]) -> Trained:
        """Train with each rate, choose on the development set, score on the test set; or read what was made before."""
        place = self.folder / f"{name}-{self.seed}.json"
        with exclusively(place):
            if place.is_file():
                kept = json.loads(place.read_text(encoding="utf-8"))
                return Trained(kept["scores"], CellCost(**kept["cost"]), kept["trainable"])
            best: tuple[float, dict[str, float]] | None = None
            with measure() as spent:
                for rate in rates:
                    work = Path(tempfile.mkdtemp(dir=self.folder, prefix=".training-"))
                    try:
                        model, trainable = train(work, rate)
                    finally:
                        shutil.rmtree(work, ignore_errors=True)
                    chosen_by = self.task.score(model, "dev")[self.task.metric] if len(rates) > 1 else 0.0
                    if best is None or chosen_by > best[0]:
                        best = chosen_by, self.task.score(model)
            assert best is not None
            examples = len(rates) * self.budget.steps * self.budget.batch_size
            cost = CellCost(forward=examples, backward=examples, seconds=spent.seconds, peak_bytes=spent.peak_bytes)
            write_json(place, {"scores": best[1], "cost": asdict(cost), "trainable": trainable})
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
