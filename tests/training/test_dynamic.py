"""Moving tickets: constant counts, who leaves and enters, empty states, and no change after the end."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerCallback

from ks_lottery.errors import OptionError
from ks_lottery.training.dynamic import SET, DynamicTicket, RigL
from ks_lottery.training.projection import Projection
from tests.training.perceptron import arguments, examples, perceptron, products

DATA = examples(*products(256, 0))
EVERY, UNTIL, STEPS = 5, 40, 60


def masks(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A tenth of each matrix."""
    generator = torch.Generator().manual_seed(3)
    found = {}
    for name, value in model.named_parameters():
        if value.dim() == 2:
            order = torch.randperm(value.numel(), generator=generator)
            found[name] = (order < value.numel() // 10).view(value.shape)
    return found


class Watch(TrainerCallback):
    """What the model, the gradient, the ticket and the optimizer were around every step; stands before or after it."""

    def __init__(self, callback: DynamicTicket) -> None:
        self.callback = callback
        self.before: list[dict[str, Any]] = []
        self.after: list[dict[str, Any]] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.before.append(self._look(model, kwargs["optimizer"], gradients=True))

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.after.append(self._look(model, kwargs["optimizer"], gradients=False))

    def _look(self, model: torch.nn.Module, optimizer: Any, gradients: bool) -> dict[str, Any]:
        named = {n: p for n, p in model.named_parameters() if n in self.callback.kept}
        return {
            "kept": {name: mask.clone() for name, mask in self.callback.kept.items()},
            "values": {name: value.detach().clone() for name, value in model.named_parameters()},
            "gradients": {n: p.grad.clone() for n, p in named.items()} if gradients else {},
            "momentum": {
                n: state.clone()
                for n, p in named.items()
                if (state := optimizer.state.get(p, {}).get("momentum_buffer")) is not None
            },
        }


def trained(folder: Path, model: torch.nn.Module, callbacks: list[TrainerCallback], **options: Any) -> None:
    settings = arguments(
        folder, max_steps=STEPS, per_device_train_batch_size=32, optim="sgd", optim_args="momentum=0.9",
        learning_rate=0.05, **options,
    )  # fmt: skip
    Trainer(model=model, args=settings, train_dataset=DATA, callbacks=callbacks).train()


@pytest.mark.parametrize("method", [RigL, SET])
@pytest.mark.parametrize("update", [False, True])
def test_what_holds_at_every_step(method: type[DynamicTicket], update: bool, tmp_path: Path) -> None:
    model = perceptron()
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    callback = method(masks(model), start if update else None, every=EVERY, until=UNTIL)
    watch = Watch(callback)
    trained(tmp_path, model, [watch, callback])
    exchanged = 0
    for step, (before, after) in enumerate(zip(watch.before, watch.after, strict=True), start=1):
        for name, old in before["kept"].items():
            new, count = after["kept"][name], callback.exchanges(step).get(name, 0)
            rest = start[name] if update else torch.zeros_like(start[name])
            assert new.sum() == old.sum() == old.numel() // 10
            assert (after["values"][name][~new] == rest[~new]).all()
            assert not count or (step % EVERY == 0 and step <= UNTIL)
            assert (new != old).sum() <= 2 * count
            entered, left = new & ~old, old & ~new
            assert (after["values"][name][entered] == rest[entered]).all()
            assert (after["momentum"][name][entered | left] == 0).all() or not count
            exchanged += int(entered.sum())
            if method is RigL and count:
                sizes = (before["values"][name] - rest).abs().masked_fill(~old, -1)
                stay = sizes.flatten().argsort(descending=True, stable=True)[: int(old.sum()) - count]
                expected = torch.zeros(old.numel(), dtype=torch.bool)
                expected[stay] = True
                gradient = before["gradients"][name].abs().flatten().masked_fill(expected, -1)
                expected[gradient.argsort(descending=True, stable=True)[:count]] = True
                assert (new.flatten() == expected).all()
                again = new & old
                assert torch.equal(after["values"][name][again], before["values"][name][again])
                assert torch.equal(after["momentum"][name][again], before["momentum"][name][again])
    assert exchanged > 50


def test_rigl_takes_no_step_when_it_exchanges(tmp_path: Path) -> None:
    model = perceptron()
    callback = RigL(masks(model), every=EVERY, until=UNTIL)
    watch = Watch(callback)
    trained(tmp_path, model, [watch, callback], weight_decay=0.1)
    still = [
        torch.equal(before["values"]["layers.0.bias"], after["values"]["layers.0.bias"])
        for before, after in zip(watch.before, watch.after, strict=True)
    ]
    assert still == [bool(callback.exchanges(step)) for step in range(1, STEPS + 1)]
    assert 5 <= sum(still) < UNTIL / EVERY


@pytest.mark.parametrize("method", [RigL, SET])
def test_without_exchanges_it_is_a_fixed_ticket_to_the_bit(method: type[DynamicTicket], tmp_path: Path) -> None:
    moving, fixed = perceptron(), perceptron()
    trained(tmp_path, moving, [method(masks(moving), every=EVERY, until=UNTIL, fraction=0.0)])
    trained(tmp_path, fixed, [Projection(masks(fixed))])
    for one, other in zip(moving.parameters(), fixed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_share_falls_as_a_cosine() -> None:
    callback = RigL({"w": torch.ones(1000, dtype=torch.bool)}, every=10, until=100, fraction=0.3)
    assert [callback.exchanges(step).get("w", 0) for step in (10, 50, 90, 100, 110, 55)] == [292, 150, 7, 0, 0, 0]


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"RigL\(every=0, until=25000\): both are steps, at least 1"):
        RigL({}, every=0)
    with pytest.raises(OptionError, match=r"SET\(fraction=1.5\): must lie in \[0, 1\]"):
        SET({}, fraction=1.5)
    model = perceptron()

    class Resumed:
        global_step = 7

    with pytest.raises(
        OptionError, match="RigL cannot go on at step 7: which weights were selected there is in no che"
    ):
        RigL(masks(model)).on_train_begin(None, Resumed(), None, model=model)
    callback = RigL(masks(model), every=1, until=10)
    with pytest.raises(
        OptionError, match=r"RigL grows weights by their gradient, but 'layers.0.weight' has none at st"
    ):
        callback._exchange(model, None, 1)
