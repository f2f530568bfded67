"""The evidence: what it says of itself, what it refuses, and how it is drawn from a data set."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ks_lottery.errors import DataError, UnitError
from ks_lottery.finders.base import finder
from ks_lottery.finders.saliency.batches import Batches, batches_of, examples_in
from tests.finders.saliency.models import batches_for, chain, every_weight, scores_of
from tests.tiny_models import tiny_llama


def collator(examples: list[int]) -> dict[str, Tensor]:
    return {"x": torch.tensor(examples)}


def test_it_says_what_it_is() -> None:
    evidence = Batches(tiny_llama(), batches_for("llama", (3, 2, 2)))
    assert evidence.details() == {"model": "LlamaForCausalLM", "batches": 3, "examples": 7}
    assert (evidence.passes.forward, evidence.passes.backward) == (0, 0)
    assert [examples_in(batch) for batch in evidence.moved()] == [3, 2, 2]


def test_nothing_is_refused() -> None:
    with pytest.raises(DataError, match=r"there is no batch. Give at least one; batches_of draws them"):
        Batches(tiny_llama(), [])
    for empty in ({}, {"input_ids": torch.empty(0, 4)}, {"temperature": 3}):
        with pytest.raises(DataError, match=r"batch 1 holds no example. Leave it out, or check the collator"):
            Batches(tiny_llama(), [*batches_for("llama", (2,)), empty])


@pytest.mark.parametrize("name", ["snip", "grasp", "head_importance"])
def test_batches_without_labels_are_refused(name: str) -> None:
    unlabelled = [{"input_ids": batch["input_ids"]} for batch in batches_for("llama")]
    with pytest.raises(DataError, match=r"'labels'.*every|'labels' into every batch, or give Batches a loss"):
        scores_of(finder(name), Batches(tiny_llama(), unlabelled), "heads")


def test_a_loss_without_gradient_is_refused() -> None:
    def detached(model: nn.Module, batch: Any) -> Tensor:
        return model(batch["x"]).detach().sum()

    model = chain(3, 2)
    evidence = Batches(model, [{"x": torch.ones(2, 3, dtype=torch.float64)}], detached)
    with pytest.raises(UnitError, match=r"The loss of batch 0 depends on none of 0.weight .* outside torch.no_grad"):
        list(finder("snip").score(every_weight(model), evidence))


def test_full_batches_are_drawn_without_replacement_and_alike_for_a_seed() -> None:
    drawn = batches_of(range(23), collator, batch_size=4, count=5, seed=3)
    numbers = torch.cat([batch["x"] for batch in drawn]).tolist()
    assert [len(batch["x"]) for batch in drawn] == [4] * 5
    assert len(set(numbers)) == 20
    assert set(numbers) <= set(range(23))
    again = batches_of(range(23), collator, batch_size=4, count=5, seed=3)
    assert all(torch.equal(one["x"], other["x"]) for one, other in zip(drawn, again, strict=True))
    other = batches_of(range(23), collator, batch_size=4, count=5, seed=4)
    assert torch.cat([batch["x"] for batch in other]).tolist() != numbers


@pytest.mark.parametrize(
    ("size", "batch_size", "count", "message"),
    [
        (7, 8, 1, "1 batches of 8 examples .* 7 examples has 0 of them. Use a batch size of at most 7"),
        (15, 4, 5, "5 batches of 4 examples .* 15 examples has 3 of them. Ask for at most 3 batches"),
        (15, 0, 5, r"batches_of\(batch_size=0, count=5\): both must be at least 1"),
        (15, 2, 0, r"batches_of\(batch_size=2, count=0\): both must be at least 1"),
    ],
)
def test_too_few_examples_are_refused(size: int, batch_size: int, count: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        batches_of(range(size), collator, batch_size, count)
