"""What a task of a comparison is, and the registry of its kinds."""

import dataclasses
import difflib
import os
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ks_lottery.errors import OptionError
from ks_lottery.registry import Registry


@runtime_checkable
class Task(Protocol):
    """A model, examples to train on, and a score.

    Attributes:
        name: as tables call it.
        metric: name of the main score; larger is better.
        digest: hex digest of the model and of all texts.
        collator: of a Trainer.
    """

    name: str
    metric: str
    collator: Any

    @property
    def digest(self) -> str:
        """Hex digest of the model and of all texts."""
        ...

    @property
    def examples(self) -> Any:
        """Tokenised training examples."""
        ...

    def load_model(self) -> Any:
        """A fresh copy of the pretrained model, the same each time, in float32 on this process's device."""
        ...

    def score(self, model: Any, split: str = "test") -> dict[str, float]:
        """Score a model on "dev" or "test"; the main score stands under `metric`."""
        ...

    def token_counts(self) -> np.ndarray:
        """[rows of the input embedding] int64, how often the training examples use each token."""
        ...


class TaskOptions(Protocol):
    """What may be written of a task in a configuration: a dataclass whose fields are its options."""

    def task(self, name: str) -> Task:
        """Make the task."""
        ...


TASKS: Registry[type[TaskOptions]] = Registry("kind of task", "ks_lottery.evaluation.tasks")


def make_task(name: str, options: Mapping[str, Any]) -> Task:
    """A task from the options of a configuration.

    Args:
        name: of the task.
        options: `kind`, a registered name, and the options of that kind; $NAME in a text is an environment variable.

    Raises:
        UnknownNameError: if there is no such kind.
        OptionError: if `kind` is missing, or an option is unknown, missing or of another type.
        DataError: if the data cannot be used.
    """
    given = dict(options)
    kind = given.pop("kind", None)
    if kind is None:
        raise OptionError(f"The task {name!r} has no kind. Give one of {', '.join(TASKS.names())}.")
    entry = TASKS.get(str(kind))
    fields = {field.name: field for field in dataclasses.fields(entry)}  # type: ignore[arg-type]
    require_known(given, fields, f"The task {name!r} of kind {kind!r}")
    missing = [
        field.name
        for field in fields.values()
        if field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
        and field.name not in given
    ]
    if missing:
        raise OptionError(f"The task {name!r} of kind {kind!r} lacks {', '.join(missing)}.")
    hints = typing.get_type_hints(entry)
    for option, value in given.items():
        _require_type(f"The task {name!r}, {option}", value, hints[option])
    return entry(**{option: _expanded(name, option, value) for option, value in given.items()}).task(name)


def _expanded(task: str, option: str, value: Any) -> Any:
    """A text with its environment variables, so that a configuration needs no paths of one machine."""
    if not isinstance(value, str) or "$" not in value:
        return value
    expanded = os.path.expandvars(value)
    if "$" in expanded:
        raise OptionError(
            f"The task {task!r}, {option}: {value!r}: there is no such environment variable. Set it "
            f"({value[value.index('$') + 1 :]}=...), or write the path."
        )
    return expanded


def require_known(given: Mapping[str, Any], known: Mapping[str, Any] | Sequence[str], what: str) -> None:
    """Check the keys of a mapping that a person wrote.

    Raises:
        OptionError: if a key is unknown; with the nearest one.
    """
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(str(key), list(known), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise OptionError(f"{what} has the unknown option {key!r}.{hint} Known: {', '.join(known)}.")


def _require_type(what: str, value: Any, hint: Any) -> None:
    """Check a value against the annotation of its option: a type, or several."""
    kinds = typing.get_args(hint) or (hint,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join("nothing" if kind is type(None) else kind.__name__ for kind in kinds)
        raise OptionError(f"{what}: {value!r}: must be {names}.")
    if type(value) is int and value < 0:
        raise OptionError(f"{what}: {value}: must not be negative.")


def count_tokens(examples: Sequence[Mapping[str, Any]], rows: int) -> np.ndarray:
    """[rows] int64, how often the examples use each token."""
    counts = np.zeros(rows, dtype=np.int64)
    for example in examples:
        counts += np.bincount(np.asarray(example["input_ids"]), minlength=rows)[:rows]
    return counts
