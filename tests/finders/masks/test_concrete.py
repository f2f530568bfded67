"""Concrete ticket search against what its paper and small runs show."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
import torch
from toy_tasks import Perceptron, matrices, perceptron, products

from ks_lottery.errors import OptionError, UnknownNameError
from ks_lottery.finders.base import UnitScores
from ks_lottery.finders.masks.balance import GradBalance, Lagrangian
from ks_lottery.finders.masks.concrete import BinaryConcrete, ConcreteTicketSearch, LateDrop
from ks_lottery.finders.masks.frozen import Frozen
from ks_lottery.finders.saliency.batches import Batch
from tests.finders.masks.models import kept_units
from tests.finders.masks.planted_update import planted_update, precision
from tests.finders.saliency.models import batches_for, scores_of
from tests.tiny_models import tiny_llama

DENSITY = 0.05


def drawing(density: float = 0.3, balance: GradBalance | Lagrangian | None = None, seed: int = 0) -> BinaryConcrete:
    generator = torch.Generator().manual_seed(seed)
    return BinaryConcrete(density, 2 / 3, balance or GradBalance(), generator)


class TestBalance:
    TASK, SLOPE = torch.tensor([3.0, 0.0, 4.0]), torch.tensor([0.0, 0.5, 0.0])

    def test_the_first_step_takes_the_ratio_of_norms_itself(self) -> None:
        assert GradBalance().weight(1e-3, self.TASK, self.SLOPE) == pytest.approx(10.0, rel=1e-9)

    def test_then_it_is_a_running_mean(self) -> None:
        balance = GradBalance()
        first = balance.weight(5.0, self.TASK, self.SLOPE)
        second = balance.weight(5.0, 3 * self.TASK, self.SLOPE)
        assert second == pytest.approx(0.99 * first + 0.01 * 3 * first, rel=1e-9)

    @pytest.mark.parametrize("excess", [0.0, -7.0])
    def test_below_the_density_it_fades_by_exactly_one_percent(self, excess: float) -> None:
        balance = GradBalance()
        weights = [balance.weight(1.0, self.TASK, self.SLOPE)]
        weights += [balance.weight(excess, self.TASK, self.SLOPE) for _ in range(3)]
        assert weights[1:] == [0.99 * before for before in weights[:-1]]

    def test_it_begins_with_nothing_where_the_density_is_met(self) -> None:
        assert GradBalance().weight(-1.0, self.TASK, self.SLOPE) == 0.0

    def test_squares_of_tiny_gradients_do_not_vanish(self) -> None:
        tiny = 1e-30 * self.TASK
        assert GradBalance().weight(1.0, tiny, 1e20 * tiny) == pytest.approx(0.5 * 1e-20 / 0.5, rel=1e-2)

    def test_a_multiplier_climbs_by_the_excess(self) -> None:
        balance = Lagrangian(0.1)
        assert [balance.weight(excess, self.TASK, self.SLOPE) for excess in (50.0, 20.0, -70.0, 0.0)] == pytest.approx(
            [0.0, 0.05, 0.07, 0.0]
        )


class TestRelaxation:
    def test_the_slope_of_the_density_is_that_of_autograd(self) -> None:
        scores = torch.randn(200, generator=torch.Generator().manual_seed(1))
        excess, slope = drawing().excess(scores)
        leaf = scores.double().requires_grad_(True)
        value = 100 * (leaf.sigmoid().sum() / (1.1 * 0.3 * 200) - 1)
        value.backward()
        assert leaf.grad is not None
        assert excess == pytest.approx(value.item(), rel=1e-5)
        assert torch.allclose(slope.double(), leaf.grad, rtol=1e-6, atol=1e-8)

    def test_the_gradient_passes_through_the_draw(self) -> None:
        scores = torch.randn(50, generator=torch.Generator().manual_seed(1)) - 3  # far below the density: lambda is 0
        weights = torch.randn(50, generator=torch.Generator().manual_seed(2))
        how = drawing()
        how.mask(scores)
        found = how.backward(scores, weights.clone())
        uniform = torch.rand(50, generator=torch.Generator().manual_seed(0))
        leaf = scores.double().requires_grad_(True)
        noise = uniform.double().logit() / (2 / 3)
        ((noise + leaf).sigmoid() * weights).sum().backward()
        assert leaf.grad is not None
        assert torch.allclose(found.double(), leaf.grad, rtol=1e-4, atol=1e-6)

    def test_above_the_density_both_gradients_are_equally_strong(self) -> None:
        scores = torch.zeros(50)
        how = drawing()
        drawn = how.mask(scores)
        task = torch.randn(50, generator=torch.Generator().manual_seed(2))
        pulled = how.backward(scores, task.clone()) - task * drawn * (1 - drawn)
        assert float(pulled.norm()) == pytest.approx(float((task * drawn * (1 - drawn)).norm()), rel=1e-5)

    def test_a_unit_is_kept_more_than_half_as_often_as_theory_says(self) -> None:
        alpha = torch.full((200_000,), -1.0)
        drawn = drawing().mask(alpha)
        assert float((drawn > 0.5).float().mean()) == pytest.approx(1 / (1 + np.exp(2 / 3)), abs=5e-3)

    def test_no_draw_is_infinite(self) -> None:
        assert drawing().mask(torch.zeros(2_000_000)).isfinite().all()

    def test_the_rate_drops_once(self) -> None:
        rates = [LateDrop(100, 0.1).rate(step) for step in (0, 87, 88, 99)]
        assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01])


@dataclass(frozen=True)
class Toy:
    """A trained perceptron, batches of its task, and what its mask is to be near to on fresh examples."""

    seed: int

    @cached_property
    def model(self) -> Perceptron:
        """Trained for 400 steps of Adam; frozen."""
        model, (x, labels) = perceptron(self.seed), products(3000, 10 + self.seed)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(400):
            chosen = torch.randint(0, len(x), (128,), generator=generator)
            optimizer.zero_grad()
            model(x[chosen], labels[chosen]).loss.backward()
            optimizer.step()
        return model.requires_grad_(False)

    @cached_property
    def batches(self) -> list[Batch]:
        """23 batches of 128."""
        x, labels = products(3000, 10 + self.seed)
        return [{"x": x[at : at + 128], "labels": labels[at : at + 128]} for at in range(0, 2944, 128)]

    @cached_property
    def found(self) -> list[UnitScores]:
        """Of the search as the paper has it."""
        search = ConcreteTicketSearch(density=DENSITY, seed=self.seed)
        return list(search.score(matrices(self.model), Frozen(self.model, self.batches)))

    def divergence(self, masks: Sequence[np.ndarray]) -> float:
        """Reverse divergence of the masked model from the dense one."""
        ticket, (x, _) = copy.deepcopy(self.model), products(1000, 999 + self.seed)
        for group, mask in zip(matrices(ticket), masks, strict=True):
            weight = ticket.get_parameter(group.name)
            weight.data.mul_(torch.from_numpy(mask).to(weight).view_as(weight))
        log_p, log_q = (model(x).logits.log_softmax(-1) for model in (ticket, self.model))
        return float((log_p.exp() * (log_p - log_q)).sum(-1).mean())

    def largest(self, values: np.ndarray, count: int = 339) -> list[np.ndarray]:
        """Masks of the largest of numbers for all weights."""
        mask = np.zeros(len(values))
        mask[np.argsort(-values, kind="stable")[:count]] = 1
        ends = np.cumsum([group.num_units for group in matrices(self.model)])[:-1]
        return np.split(mask, ends)

    @property
    def sizes(self) -> np.ndarray:
        """|w| of all weights."""
        parts = [self.model.get_parameter(group.name).abs().flatten() for group in matrices(self.model)]
        return torch.cat(parts).numpy()


@pytest.fixture(scope="module", params=[0])
def toy(request: pytest.FixtureRequest) -> Toy:
    return Toy(request.param)


class TestOracle:
    """Reverse divergence at 5 %: .32-.50 for the search, 2.6-4.1 for magnitude (5 seeds)."""

    def test_it_is_five_times_as_near_as_magnitude(self, toy: Toy) -> None:
        found = toy.divergence([entry.columns["kept"] for entry in toy.found])
        assert found < 0.6
        assert toy.divergence(toy.largest(toy.sizes)) > 5 * found

    def test_it_keeps_exactly_the_density_and_its_logits_hold_it(self, toy: Toy) -> None:
        kept, alpha = (np.concatenate([entry.columns[name] for entry in toy.found]) for name in ("kept", "score"))
        assert len(kept) == 6784
        assert kept.sum() == 339
        assert 0.8 <= (1 / (1 + np.exp(-alpha))).mean() / (1.1 * DENSITY) <= 1.15
        assert alpha[kept == 1].min() >= alpha[kept == 0].max()

    def test_its_smallest_logits_and_its_shuffle_are_worse_than_it_by_far(self, toy: Toy) -> None:
        alpha = np.concatenate([entry.columns["score"] for entry in toy.found])
        found, inverted = toy.divergence(toy.largest(alpha)), toy.divergence(toy.largest(-alpha))
        generator = np.random.default_rng(0)
        shuffled = toy.divergence([generator.permutation(entry.columns["kept"]) for entry in toy.found])
        drawn = np.mean([toy.divergence(toy.largest(generator.random(6784))) for _ in range(3)])
        assert min(inverted, shuffled) > 5 * found
        assert inverted > drawn - 0.05  # a net with hardly a weight and one with no path are both constant

    def test_no_weight_moves(self, toy: Toy) -> None:
        assert toy.found
        again = Toy(toy.seed).model
        assert all(
            torch.equal(one, other) for one, other in zip(toy.model.parameters(), again.parameters(), strict=True)
        )


def test_the_multiplier_of_the_ablation_finds_a_worse_ticket() -> None:
    toy = Toy(0)
    search = ConcreteTicketSearch(density=DENSITY, balance="lagrangian", steps=100)
    entries = list(search.score(matrices(toy.model), Frozen(toy.model, toy.batches)))
    assert kept_units(entries).sum() == 339
    assert toy.divergence([entry.columns["kept"] for entry in entries]) > 0.6


def test_the_seed_decides() -> None:
    model, (x, labels) = perceptron(0).requires_grad_(False), products(64, 0)
    evidence = Frozen(model, [{"x": x, "labels": labels}])
    one, again, other = (
        kept_units(list(ConcreteTicketSearch(steps=4, seed=seed).score(matrices(model), evidence)))
        for seed in (1, 1, 2)
    )
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_it_finds_the_neurons_of_a_known_update() -> None:
    """A teacher moved 30 % of the neurons; every other neuron of `after` moved for nothing."""
    case = planted_update(seed=0, units="neurons", density=0.3)
    search = ConcreteTicketSearch("update", density=0.3, objective="loss", steps=150)
    entries = list(search.score(case.groups, case.evidence))
    assert precision(entries, case) >= 0.8


def test_a_batch_is_run_once_by_the_dense_model() -> None:
    evidence = Frozen(tiny_llama().requires_grad_(False), batches_for("llama"))
    scores_of(ConcreteTicketSearch(steps=5, density=0.5), evidence, "heads")
    assert (evidence.passes.forward, evidence.passes.backward) == (3 + 2 + 3 + 2 + 3 + 5, 3 + 2 + 3 + 2 + 3)


def test_units_that_did_not_move_are_kept_last() -> None:
    model, after = tiny_llama().requires_grad_(False), tiny_llama()
    with torch.no_grad():
        after.model.embed_tokens.weight[4:9] += 0.1
    evidence = Frozen(model, batches_for("llama"), after=after)
    (entry,) = scores_of(ConcreteTicketSearch("update", density=0.25, steps=3), evidence, "token_rows")
    assert entry.columns["kept"].sum() == 16
    assert (entry.columns["kept"][4:9] == 1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 0.0}, "Finder 'concrete', density=0.0: must lie between 0 and 1"),
        ({"kind": "both"}, "kind='both': must be weight or update"),
        ({"temperature": 0.0}, "temperature=0.0: must be a number above 0; the paper's is 2/3"),
        ({"balance": "none"}, "balance='none': must be one of gradbalance, lagrangian"),
        ({"steps": 0}, "steps=0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ConcreteTicketSearch(**options)  # type: ignore[arg-type]


def test_an_unknown_objective_is_refused_at_once() -> None:
    with pytest.raises(UnknownNameError, match="Unknown objective 'kll'. Did you mean 'kl'"):
        ConcreteTicketSearch(objective="kll")
