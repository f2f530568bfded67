"""Tasks from the options of a configuration."""

from typing import Any

import numpy as np
import pytest

from ks_lottery.errors import OptionError, UnknownNameError
from ks_lottery.evaluation.tasks.base import TASKS, Task, count_tokens, make_task
from tests.evaluation.comparison.planted import PlantedTask

FILES = {"kind": "classification", "model": "m", "train": "a.csv", "test": "b.csv"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "m"}, "The task 'mine' has no kind. Give one of classification, "),
        ({"kind": "classification", "model": "m"}, "The task 'mine' of kind 'classification' lacks train, test."),
        ({**FILES, "trian": "a.csv"}, "of kind 'classification' has the unknown option 'trian'. Did you mean 'train'?"),
        ({**FILES, "max_length": "long"}, "The task 'mine', max_length: 'long': must be int."),
        ({**FILES, "max_length": True}, "The task 'mine', max_length: True: must be int."),
        ({**FILES, "train_texts": 0.5}, "The task 'mine', train_texts: 0.5: must be int or nothing."),
        ({**FILES, "train_texts": -5}, "The task 'mine', train_texts: -5: must not be negative."),
        ({**FILES, "model": 3}, "The task 'mine', model: 3: must be str."),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        make_task("mine", options)
    assert message in str(caught.value)


def test_unknown_kinds() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown kind of task 'translate'. Did you mean 'translation'\?"):
        make_task("mine", {"kind": "translate"})
    assert {"classification", "translation"} <= set(TASKS.names())


def test_what_a_task_is() -> None:
    assert isinstance(PlantedTask(), Task)


def test_tokens_are_counted() -> None:
    counts = count_tokens([{"input_ids": [1, 1, 4]}, {"input_ids": [0, 4, 9]}], 6)
    np.testing.assert_array_equal(counts, [1, 2, 0, 0, 2, 0])
    assert counts.dtype == np.int64
