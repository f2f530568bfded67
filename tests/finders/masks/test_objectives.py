"""What learnt masks make small: identities, derivatives, and which outputs count."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy_tasks import matrices, perceptron, products

from ks_lottery.errors import DataError, UnitError
from ks_lottery.finders.masks.concrete import ConcreteTicketSearch
from ks_lottery.finders.masks.frozen import Frozen
from ks_lottery.finders.masks.learning import Objective
from ks_lottery.finders.masks.masked import MaskedModel, masked
from ks_lottery.finders.masks.objectives.answers import Answers
from ks_lottery.finders.masks.objectives.base import OBJECTIVES
from ks_lottery.finders.masks.objectives.dense import DENSE_BYTES, objective_of
from ks_lottery.units.slab import UnitGroup
from tests.finders.masks.models import frozen_of, tuned
from tests.finders.saliency.models import MODELS, batches_for, every_weight, groups_of

NAMES = OBJECTIVES.names()
AGAINST_DENSE = [name for name in NAMES if OBJECTIVES.get(name).against_dense]


def toy(double: bool = False) -> tuple[Frozen, tuple[UnitGroup, ...]]:
    model, (x, labels) = perceptron(0, (40, 16, 2)).requires_grad_(False), products(96, 3)
    if double:
        model, x = model.double(), x.double()
    halves = [{"x": x[at : at + 48], "labels": labels[at : at + 48]} for at in (0, 48)]
    return Frozen(model, halves, after=tuned(model, size=0.2)), matrices(model)


@contextmanager
def opened(
    name: str, evidence: Frozen, groups: tuple[UnitGroup, ...], mask: Tensor | None = None, limit: int = DENSE_BYTES
) -> Iterator[tuple[MaskedModel, Objective]]:
    """A masked model under a mask, of ones if None, and an objective."""
    with masked(evidence, groups, "weight") as model:
        used = torch.ones(model.num_units) if mask is None else mask
        model.write(used)
        with objective_of(name, model, evidence, lambda: used, limit) as objective:
            yield model, objective


def half(groups: tuple[UnitGroup, ...], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(sum(group.num_units for group in groups), generator=generator)


def batch_of(evidence: Frozen, number: int = 0) -> dict[str, Any]:
    return list(evidence.moved())[number]


def test_there_are_the_six_of_the_paper_and_the_forward_divergence() -> None:
    assert NAMES == ("deltaloss", "feature", "forward_kl", "gradmatch", "gradnorm", "kl", "loss")
    scales = {name: OBJECTIVES.get(name).scale for name in NAMES}
    assert scales.pop("deltaloss") == 1e4
    assert scales.pop("gradnorm") == 1
    assert set(scales.values()) == {100}
    for name in NAMES:
        assert "Source:" in (OBJECTIVES.get(name).__doc__ or "") or name == "forward_kl"


@pytest.mark.parametrize("name", AGAINST_DENSE)
def test_the_dense_model_is_at_no_distance_from_itself(name: str) -> None:
    evidence, groups = toy()
    with opened(name, evidence, groups) as (_, objective):
        assert objective(0, batch_of(evidence)).item() == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_by_the_mask_is_that_of_differences(name: str) -> None:
    evidence, groups = toy(double=True)
    mask = 0.2 + 0.6 * half(groups)
    units = np.random.default_rng(0).permutation(len(mask))[:12]
    with opened(name, evidence, groups, mask) as (model, objective):
        batch = batch_of(evidence)
        gradient = model.gradient(lambda: objective(0, batch))

        def value(unit: int, step: float) -> float:
            moved = mask.double()
            moved[unit] += step
            model.write(moved)
            return objective(0, batch).item()

        measured = [(value(unit, 1e-5) - value(unit, -1e-5)) / 2e-5 for unit in units]
    assert gradient[units].numpy() == pytest.approx(
        np.array(measured), rel=2e-3, abs=1e-4 * float(gradient.abs().max())
    )
    assert np.abs(measured).max() > 0


@pytest.mark.parametrize(("case", "kind"), [("perceptron", "weight"), ("llama", "update")])
@pytest.mark.parametrize("name", NAMES)
def test_a_search_makes_it_smaller_than_a_draw_does(name: str, case: str, kind: Any) -> None:
    evidence, groups = learnt(case)
    search = ConcreteTicketSearch(kind, density=0.3, objective=name, steps=60)
    entries = list(search.score(groups, evidence))
    kept = torch.from_numpy(np.concatenate([entry.columns["kept"] for entry in entries])).float()
    generator = torch.Generator().manual_seed(5)
    draws = [kept[torch.randperm(len(kept), generator=generator)] for _ in range(4)]
    found, *others = (_mean(name, evidence, groups, kind, mask) for mask in (kept, *draws))
    assert np.isfinite([found, *others]).all()
    assert found < np.mean(others)


def learnt(case: str) -> tuple[Frozen, tuple[UnitGroup, ...]]:
    """A perceptron that has begun to learn its batches; or a Llama, and what it becomes when it learns its own."""
    evidence = toy()[0] if case == "perceptron" else frozen_of("llama", "weight")
    before, after = evidence.model, tuned(evidence.model, size=0.0).eval()
    optimizer = torch.optim.Adam(after.parameters(), lr=1e-2)
    for batch in [*evidence.moved()] * 8:
        optimizer.zero_grad()
        after(**batch).loss.backward()
        optimizer.step()
    if case == "perceptron":
        return Frozen(after.requires_grad_(False), evidence.batches), matrices(after)
    return Frozen(before, evidence.batches, after=after), groups_of(before, "neurons")


def _mean(name: str, evidence: Frozen, groups: tuple[UnitGroup, ...], kind: Any, mask: Tensor) -> float:
    with masked(evidence, groups, kind) as model:
        model.write(mask)
        with objective_of(name, model, evidence, lambda: mask) as objective:
            return float(np.mean([objective(number, batch).item() for number, batch in enumerate(evidence.moved())]))


@pytest.mark.parametrize("name", AGAINST_DENSE)
def test_what_is_not_kept_of_the_dense_model_is_computed_again(name: str) -> None:
    found = []
    for limit in (DENSE_BYTES, 0):
        evidence, groups = toy()
        with opened(name, evidence, groups, half(groups), limit) as (model, objective):
            weights = [parameter.clone() for parameter in model.wanted.values()]
            values = [objective(0, batch_of(evidence)).item() for _ in range(3)]
            assert all(torch.equal(one, two) for one, two in zip(weights, model.wanted.values(), strict=True))
        found.append(values)
        assert evidence.passes.forward == 48 * (4 if limit else 6)
    assert found[0] == found[1]


class TestAnswers:
    def test_the_labels_of_a_causal_model_are_answered_one_position_before(self) -> None:
        evidence = frozen_of("llama", "weight")
        batch = batch_of(evidence)
        where = Answers().where(evidence.model(**batch), batch)
        assert where is not None
        assert where.tolist() == [[False, True, True, True, True, True, True, True, False]] * 3

    def test_prompts_and_padding_change_nothing(self) -> None:
        evidence, groups = frozen_of("llama", "weight"), groups_of(MODELS["llama"](), "heads")
        batch = batch_of(evidence)
        padded = {name: nn.functional.pad(value, (0, 4), value=_PADDING[name]) for name, value in batch.items()}
        other = {**padded, "input_ids": padded["input_ids"].clone()}
        with opened("kl", evidence, groups, half(groups)) as (_, objective):
            assert objective(1, padded).item() == pytest.approx(objective(0, batch).item(), rel=1e-4)
        other["input_ids"][:, -4:] = 9
        with opened("kl", evidence, groups, half(groups)) as (_, objective):
            assert objective(1, other).item() == pytest.approx(objective(0, batch).item(), rel=1e-4)

    def test_without_labels_the_attention_mask_says_what_counts(self) -> None:
        output, mask = SimpleNamespace(logits=torch.zeros(2, 3, 5)), torch.tensor([[1, 1, 0], [1, 0, 0]])
        where = Answers().where(output, {"attention_mask": mask})
        assert where is not None
        assert where.tolist() == mask.bool().tolist()
        assert Answers().where(output, {}) is None
        assert len(Answers().logits(output, {})) == 6

    def test_labels_of_the_same_position_are_recognised(self) -> None:
        logits, labels = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0)), torch.ones(2, 6).long()
        labels[:, 3:] = -100
        own = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        where = Answers().where(SimpleNamespace(logits=logits, loss=own), {"labels": labels})
        assert where is not None
        assert where.tolist() == (labels != -100).tolist()

    def test_a_classifier_counts_all_examples(self) -> None:
        evidence = frozen_of("bert", "weight")
        batch = batch_of(evidence)
        assert Answers().where(evidence.model(**batch), batch) is None


_PADDING = {"input_ids": 0, "attention_mask": 0, "labels": -100}


class Tapped(nn.Module):
    """A perceptron that has its ReLU as a module."""

    def __init__(self, give: Callable[[Tensor], Any] = lambda logits: SimpleNamespace(logits=logits)) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(40, 8), nn.ReLU(), nn.Linear(8, 2))
        self.give = give

    def forward(self, x: Tensor) -> Any:
        return self.give(self.layers(x))


def tapped(give: Callable[[Tensor], Any] = lambda logits: SimpleNamespace(logits=logits)) -> Frozen:
    return Frozen(
        Tapped(give).requires_grad_(False), [{"x": products(16, 0)[0]}], loss=lambda model, batch: model(**batch)
    )


def test_features_are_the_outputs_of_relu_modules_and_the_probabilities() -> None:
    evidence = tapped()
    model, x = evidence.model, evidence.batches[0]["x"]
    groups = every_weight(model)
    mask = torch.cat(
        [torch.rand(1, generator=torch.Generator().manual_seed(2)).expand(group.num_units) for group in groups]
    )
    with opened("feature", evidence, groups, mask) as (_, objective):
        value = objective(0, {"x": x}).item()
        assert not any(module._forward_hooks for module in model.modules())
        masked_hidden = torch.relu(model.layers[0](x))
        masked_out = model(x).logits.softmax(-1)
    hidden, out = torch.relu(model.layers[0](x)), model(x).logits.softmax(-1)

    def standard(values: Tensor) -> Tensor:
        return (values - values.mean(1, keepdim=True)) / values.std(1, correction=0, keepdim=True)

    apart = (standard(masked_hidden) - standard(hidden)).square().mean() + (masked_out - out).square().mean()
    assert value == pytest.approx(100 * apart.item() / 2, rel=1e-4)


class TestRefusals:
    def test_a_model_that_does_not_take_the_batch(self) -> None:
        evidence = tapped()
        with (
            opened("kl", evidence, every_weight(evidence.model)) as (_, objective),
            pytest.raises(DataError, match=r"Tapped does not take the entries y of batch 0 .* Use objective='loss'"),
        ):
            objective(0, {"y": evidence.batches[0]["x"]})

    @pytest.mark.parametrize(
        ("give", "has"),
        [
            (lambda logits: logits, "no logits"),
            (lambda logits: SimpleNamespace(logits=logits[:, :1]), r"logits of shape \(16, 1\)"),
        ],
    )
    def test_outputs_that_are_no_distributions(self, give: Any, has: str) -> None:
        evidence = tapped(give)
        with (
            opened("kl", evidence, every_weight(evidence.model)) as (_, objective),
            pytest.raises(DataError, match=f"Tapped gives {has} for batch 0"),
        ):
            objective(0, batch_of(evidence))

    def test_outputs_that_are_not_finite(self) -> None:
        evidence = tapped(lambda logits: SimpleNamespace(logits=logits * float("inf")))
        with (
            opened("kl", evidence, every_weight(evidence.model)) as (_, objective),
            pytest.raises(UnitError, match="A logit of batch 0 is NaN or infinite under the mask"),
        ):
            objective(0, batch_of(evidence))

    def test_a_dense_loss_of_zero_is_no_measure(self) -> None:
        evidence = Frozen(Tapped().requires_grad_(False), batches_for("bert"), loss=_nothing)
        with (
            opened("deltaloss", evidence, every_weight(evidence.model)) as (_, objective),
            pytest.raises(DataError, match="loss on batch 0 is 0, and objective 'deltaloss' divides by it"),
        ):
            objective(0, batch_of(evidence))

    def test_a_loss_without_a_second_derivative(self) -> None:
        evidence = Frozen(Tapped().requires_grad_(False), batches_for("bert"), loss=_linear)
        with (
            opened("gradnorm", evidence, every_weight(evidence.model)) as (_, objective),
            pytest.raises(UnitError, match="No gradient of batch 0's loss depends on the weights of the units"),
        ):
            objective(0, batch_of(evidence))


def _linear(model: nn.Module, batch: Any) -> Tensor:
    return model.layers[0].weight.sum()  # type: ignore[index, union-attr]


def _nothing(model: nn.Module, batch: Any) -> Tensor:
    return 0 * _linear(model, batch)
