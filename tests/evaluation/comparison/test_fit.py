"""Tasks and models that are too small for a plan are refused before anything is trained."""

from typing import Any

import pytest

from ks_lottery.errors import DataError, OptionError
from ks_lottery.evaluation.comparison.fit import require_fit
from tests.evaluation.comparison.planted import PlantedTask, planted_plan


def check(finders: list[str], texts: int = 48, **changes: Any) -> None:
    require_fit(planted_plan(finders, **changes), {"planted": PlantedTask(texts=texts)})


@pytest.mark.parametrize(
    ("texts", "changes", "message"),
    [
        (7, {}, "has 7 training examples, fewer than one batch of 8 (budget, batch_size)."),
        (15, {}, "has 15 training examples, fewer than one batch of 8 in each of 2 partitions (budget, partitions)."),
        (17, {"budget": {"batches": 3}}, "fewer than the 3 batches of 8 (budget, batches) that finder 'fisher'"),
    ],
)  # fmt: skip
def test_too_few_examples(texts: int, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        check(["oracle", "fisher"], texts, **changes)
    assert str(caught.value).startswith("The task 'planted' has ")
    assert message in str(caught.value)


def test_enough_examples() -> None:
    assert check(["oracle"], 8, budget={"partitions": 1}) is None
    assert check(["oracle"], 16, budget={"batches": 100}) is None
    assert check(["fisher"], 16) is None


def test_a_density_that_leaves_nothing() -> None:
    with pytest.raises(OptionError) as caught:
        check(["oracle"], table={"densities": [0.5, 0.02]})
    assert str(caught.value) == (
        "The table of update tickets of token_rows: density 0.02 leaves none of 24 units. Give at least 0.0417."
    )


def test_a_density_that_leaves_a_layer_of_a_weight_ticket_empty() -> None:
    """4 heads, 2 of them in each layer, since two share their keys and values; layers of 48 neurons."""
    assert check(["oracle"], table={"units": "heads", "densities": [0.25]}) is None
    with pytest.raises(OptionError) as caught:
        check(["oracle"], table={"units": "heads", "densities": [0.5, 0.24], "kind": "weight"})
    assert "density 0.24 leaves the layer " in str(caught.value)
    assert "empty, which has 2 units, and a weight ticket is zero where it has none. Give at least 0.5" in str(
        caught.value
    )
    assert check(["oracle"], table={"units": "neurons", "densities": [0.03], "kind": "weight"}) is None
    assert check(["oracle"], table={"units": "neurons", "densities": [0.02]}) is None
