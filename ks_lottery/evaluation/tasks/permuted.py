"""A task whose examples have exchanged their labels: what a finder makes of data that means nothing."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ks_lottery.evaluation.sanity import permuted_labels
from ks_lottery.evaluation.tasks.base import Task


@dataclass
class PermutedTask:
    """Another task, every training example of which has the label, or the response, of another example.

    Attributes:
        task: the task as it is; its model, its scores and its tokens stay.
        seed: of the exchange.
    """

    task: Task
    seed: int

    def __post_init__(self) -> None:
        self.name, self.metric, self.collator = self.task.name, self.task.metric, self.task.collator

    @cached_property
    def digest(self) -> str:
        """Hex digest of the task and of the exchange."""
        return hashlib.sha256(f"{self.task.digest} permuted {self.seed}".encode()).hexdigest()

    @cached_property
    def examples(self) -> Any:
        """Training examples; errors as `permuted_labels`."""
        return permuted_labels(self.task.examples, self.seed)

    def load_model(self) -> Any:
        """The task's model."""
        return self.task.load_model()

    def score(self, model: Any, split: str = "test") -> dict[str, float]:
        """The task's scores."""
        return self.task.score(model, split)

    def token_counts(self) -> np.ndarray:
        """The task's tokens, which the exchange does not change."""
        return self.task.token_counts()
