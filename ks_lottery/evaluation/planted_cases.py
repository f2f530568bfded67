"""The cases of the planted benchmark: what is planted, and what every finder may spend on finding it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ks_lottery.evaluation.comparison.plan import Budget

_TEACHER = Budget(
    steps=300, batch_size=32, dense_rates=(2e-3,), probe_rate=2e-3, ticket_rates=(2e-3,), adam_beta2=0.95, batches=16
)
_PERCEPTRON = Budget(
    steps=300, batch_size=64, dense_rates=(3e-3,), probe_rate=3e-3, ticket_rates=(3e-3,), adam_beta2=0.999, batches=16
)


@dataclass(frozen=True)
class Case:
    """One planted ticket.

    Attributes:
        name: as tables call it.
        says: what is planted, in a few words.
        task: options of a task of kind "planted".
        budget: of every training, and of the batches that are looked at.
        quick: whether it is part of a quick run.
    """

    name: str
    says: str
    task: Mapping[str, Any]
    budget: Budget = field(default=_TEACHER)
    quick: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON values of all that decides a result."""
        return {"task": dict(self.task), "budget": asdict(self.budget)}


_C_FC = {"only": "*.mlp.c_fc.weight"}
_WEIGHTS = Budget(**{**asdict(_TEACHER), "steps": 600})
CASES = (
    Case("relu", "a ramp in a perceptron, every weight a unit", {"host": "relu"}, _PERCEPTRON),
    Case("circle", "four classes by radius in a perceptron, every weight a unit", {"host": "circle"}, _PERCEPTRON),
    Case("helix", "a helix in a perceptron, every weight a unit", {"host": "helix"}, _PERCEPTRON),
    Case(
        "rows", "5 % of the rows of c_fc that compute one neuron each, moved by .3",
        {"units": "matrix_rows", **_C_FC}, quick=True,
    ),
    Case("weights", "5 % of the single weights of c_fc, moved by .3", {"units": "weights", **_C_FC}, _WEIGHTS),
    Case("neurons", "5 % of the neurons, read and write, moved by .05", {"units": "neurons", "size": 0.05}),
    Case("heads", "two of eight heads, moved by .1", {"units": "heads", "count": 2, "size": 0.1}),
    Case("tokens", "four of 64 token rows, moved by .1", {"units": "token_rows", "count": 4, "size": 0.1}),
    Case(
        "kept heads", "the teacher has two of eight heads, and zeros for the others",
        {"kind": "weight", "units": "heads", "count": 2},
    ),
    Case(
        "kept neurons", "the teacher has 10 % of the neurons, and zeros for the others",
        {"kind": "weight", "units": "neurons", "density": 0.1},
    ),
)  # fmt: skip
"""All cases; the first three are the paper's tasks, the others are in a transformer."""


def quick_case(case: Case) -> Case:
    """The same case with few examples and trainings of 50 long steps, for a look in under a minute."""
    rates = {"dense_rates": (1e-2,), "probe_rate": 1e-2, "ticket_rates": (1e-2,)}
    budget = Budget(**{**asdict(case.budget), **rates, "steps": 50, "batch_size": 16, "batches": 8})
    return Case(case.name, case.says, {**case.task, "examples": 1024}, budget, case.quick)
