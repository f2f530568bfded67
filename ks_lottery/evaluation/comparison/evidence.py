"""What a finder gets to look at, made from a task: two checkpoints, batches, repeated training, or nothing."""

from collections.abc import Sequence
from typing import Any

from ks_lottery.checkpoints.reader import Checkpoint
from ks_lottery.evaluation.comparison.training import Trainings
from ks_lottery.finders.base import Evidence, Finder, Shift
from ks_lottery.finders.masks.frozen import Frozen
from ks_lottery.finders.rounds.levels import dense_run
from ks_lottery.finders.rounds.runs import Runs
from ks_lottery.finders.saliency.batches import Batches, batches_of
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.slab import UnitGroup


def evidence_for(
    method: Finder,
    trainings: Trainings,
    runs: Runs,
    groups: Sequence[UnitGroup],
    kind: Kind,
    after: Checkpoint | None = None,
) -> Evidence:
    """The evidence that a finder needs.

    Args:
        method: the finder.
        trainings: of the task, with the budget and the seed of what is drawn.
        runs: trainings that serve finding; its base is the model that units are listed on.
        groups: the units.
        kind: of ticket. For a weight ticket everything trains in a probe, for an update ticket the units alone.
        after: the model after a probe; trained, if None, where the finder needs one.

    Returns:
        `Shift`; `Batches`, as many as the budget says; `Frozen`, with a batch for each step of the budget as far as
        the examples go; `Runs`; or nothing.

    Raises:
        DataError: if the task has too few examples.
    """
    if method.needs is Shift:
        return Shift(runs.base, after or runs.train(dense_run(groups, kind)))
    if method.needs is Batches:
        return Batches(trainings.task.load_model(), _batches(trainings, trainings.budget.batches))
    if method.needs is Frozen:
        count = min(trainings.budget.steps, len(trainings.task.examples) // trainings.budget.batch_size)
        batches = _batches(trainings, max(1, count))
        tuned = (after or runs.train(dense_run(groups, kind))) if kind == "update" else None
        return Frozen(trainings.task.load_model().requires_grad_(False), batches, after=tuned)
    return runs if method.needs is Runs else Evidence()


def _batches(trainings: Trainings, count: int) -> Sequence[Any]:
    task, budget = trainings.task, trainings.budget
    return batches_of(task.examples, task.collator, budget.batch_size, count, trainings.seed)
