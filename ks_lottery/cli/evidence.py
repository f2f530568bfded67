"""What a finder of the command line gets to look at beside two checkpoints: a task's batches, trainings and masks."""

from pathlib import Path
from typing import TYPE_CHECKING

from ks_lottery.checkpoints.checkpoint import Checkpoint
from ks_lottery.errors import OptionError

if TYPE_CHECKING:
    from ks_lottery.finders.base import Evidence, Finder
    from ks_lottery.units.granularity import Granularity


def require_sides(finder: "Finder", after: str | None, task: str | None) -> None:
    """Check that a finder is given what it looks at, before anything is read.

    Raises:
        OptionError: if something is missing, or something is given that the finder does not look at.
    """
    from ks_lottery.finders.base import Evidence, Shift
    from ks_lottery.finders.masks.frozen import Frozen

    if finder.needs is Shift:
        if after is None:
            raise OptionError(f"Finder {finder.name!r} looks at two checkpoints: give AFTER, the model after training.")
        if task is not None:
            raise OptionError(f"--task {task}: finder {finder.name!r} looks at two checkpoints alone. Leave it out.")
        return
    if after is not None and not (finder.needs is Frozen and finder.kind == "update"):
        way_out = " or ask for --option kind=update" if finder.needs is Frozen else ""
        raise OptionError(
            f"Finder {finder.name!r} looks at {finder.needs.described}, and not at the second checkpoint {after!r}. "
            f"Leave it out{way_out}."
        )
    if finder.needs is Evidence:
        if task is not None:
            raise OptionError(f"--task {task}: finder {finder.name!r} looks at nothing. Leave it out.")
        return
    if task is None:
        raise OptionError(
            f"Finder {finder.name!r} looks at {finder.needs.described}. Give --task FILE, a YAML file with `task` "
            "(kind, data) and if wanted `budget`, as in a comparison."
        )


def task_evidence(
    before: str, after: Checkpoint | None, finder: "Finder", units: "Granularity", task: str, runs_folder: str
) -> "tuple[Checkpoint, Evidence]":
    """The base model as the task loads it, and the evidence.

    Args:
        before: folder or Hub id of the base model.
        after: the model after a probe; trained, if None, where the finder needs one.
        finder: who looks.
        units: what is selected.
        task: YAML file.
        runs_folder: where trainings are kept; a rerun goes on with them.

    Raises:
        OptionError, UnknownNameError, DataError: if the file, the task or its data cannot be used.
    """
    from ks_lottery.evaluation.comparison.evidence import evidence_for
    from ks_lottery.evaluation.comparison.task_file import read_task_file
    from ks_lottery.evaluation.comparison.training import Trainings

    file = read_task_file(task)
    folder = Path(runs_folder)
    trainings = Trainings(file.task(before), file.budget, file.seed, folder)
    rate = file.budget.probe_rate if finder.kind == "update" else file.budget.dense_rates[0]
    runs = trainings.runs(folder, rate)
    groups = tuple(units.groups(runs.base.layout()))
    return runs.base, evidence_for(finder, trainings, runs, groups, finder.kind, after)
