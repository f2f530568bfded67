"""One task with its budget, as a person writes it for a single search."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ks_lottery.errors import OptionError
from ks_lottery.evaluation.comparison.plan import Budget, read_budget, read_yaml
from ks_lottery.evaluation.tasks.base import TASKS, Task, make_task, require_known


@dataclass(frozen=True)
class TaskFile:
    """What a finder that looks at data needs to know.

    Attributes:
        name: of the task: that of the file.
        options: of the task, `kind` among them.
        budget: of trainings, batches and masks.
        seed: of the data order and of what is drawn.
    """

    name: str
    options: Mapping[str, Any]
    budget: Budget
    seed: int = 0

    def task(self, model: str) -> Task:
        """The task on a model.

        Args:
            model: folder or Hub id.

        Raises:
            OptionError: if the file names another model, or as `make_task`.
            UnknownNameError, DataError: as `make_task`.
        """
        own = self.options.get("model", model)
        if own != model:
            raise OptionError(
                f"The task {self.name!r} has model: {own}, but the ticket is asked for {model}. Leave the model out of "
                "the file."
            )
        kind = str(self.options.get("kind"))
        takes_model = "kind" in self.options and "model" in {
            field.name
            for field in dataclasses.fields(TASKS.get(kind))  # type: ignore[arg-type]
        }
        return make_task(self.name, {**self.options, **({"model": model} if takes_model else {})})


def read_task_file(file: str | os.PathLike[str]) -> TaskFile:
    """Read a YAML file with `task`, and if wanted `budget` and `seed`, each as in a comparison.

    Raises:
        OptionError: if the file is missing or no YAML, or an option is unknown, missing or wrong.
    """
    path = Path(file)
    values = read_yaml(path)
    require_known(values, ("task", "budget", "seed"), str(path))
    options, seed = values.get("task"), values.get("seed", 0)
    if not isinstance(options, Mapping):
        raise OptionError(f"{str(path)!r}, task: {options!r}: must hold `kind` and the options of that kind.")
    if type(seed) is not int or seed < 0:
        raise OptionError(f"{str(path)!r}, seed: {seed!r}: must be a whole number from 0 on.")
    return TaskFile(path.stem, dict(options), read_budget(values.get("budget") or {}), seed)
