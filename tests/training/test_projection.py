"""What is held stays where it belongs, whatever the optimizer does."""

from pathlib import Path

import pytest
import torch
from transformers import Trainer

from ks_lottery.errors import OptionError
from ks_lottery.training.projection import Projection
from tests.training.perceptron import arguments, examples, perceptron, products

DATA = examples(*products(64, 0))


def masks(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        name: torch.rand(value.shape, generator=generator) < 0.3
        for name, value in model.named_parameters()
        if value.dim() == 2
    }


def trained(folder: Path, model: torch.nn.Module, callback: Projection | None, **options) -> dict[str, torch.Tensor]:
    settings = arguments(folder, max_steps=6, per_device_train_batch_size=16, **options)
    Trainer(model=model, args=settings, train_dataset=DATA, callbacks=[callback] if callback else []).train()
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize("optim", ["adamw_torch", "sgd"])
def test_held_weights_are_zero_and_the_others_train(tmp_path: Path, optim: str) -> None:
    model = perceptron()
    kept, start = masks(model), {name: value.clone() for name, value in model.named_parameters()}
    after = trained(tmp_path, model, Projection(kept), optim=optim, weight_decay=0.1)
    for name, mask in kept.items():
        assert (after[name][~mask] == 0).all()
        assert (after[name][mask] != start[name][mask]).float().mean() > 0.9
    assert (after["layers.0.bias"] != start["layers.0.bias"]).any()


@pytest.mark.parametrize("optim", ["adamw_torch", "sgd"])
def test_held_weights_of_an_update_keep_their_bits(tmp_path: Path, optim: str) -> None:
    model = perceptron()
    kept, start = masks(model), {name: value.detach().clone() for name, value in model.named_parameters()}
    after = trained(tmp_path, model, Projection(kept, start), optim=optim, weight_decay=0.1)
    for name, mask in kept.items():
        assert torch.equal(after[name][~mask], start[name][~mask])
        assert (after[name][mask] != start[name][mask]).float().mean() > 0.9


def test_held_weights_count_neither_for_the_clipped_norm_nor_for_the_state(tmp_path: Path) -> None:
    """The same training as that of a model whose other weights are constants."""

    class Masked(torch.nn.Module):
        def __init__(self, mask: torch.Tensor, start: torch.Tensor) -> None:
            super().__init__()
            self.register_buffer("mask", mask.float())
            self.weight = torch.nn.Parameter(start * mask)

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": torch.nn.functional.cross_entropy(x @ (self.weight * self.mask).T, labels)}

    class Plain(torch.nn.Module):
        def __init__(self, start: torch.Tensor) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(start.clone())

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": torch.nn.functional.cross_entropy(x @ self.weight.T, labels)}

    start = torch.randn(2, 40, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(80).reshape(2, 40) % 3 == 0
    options = {"max_grad_norm": 0.01, "weight_decay": 0.0}
    plain = trained(tmp_path / "plain", Plain(start), Projection({"weight": mask}), **options)
    masked = trained(tmp_path / "masked", Masked(mask, start), None, **options)
    torch.testing.assert_close(plain["weight"], masked["weight"], rtol=1e-6, atol=1e-8)


def test_a_mask_of_everything_changes_nothing(tmp_path: Path) -> None:
    full = {name: torch.ones_like(mask) for name, mask in masks(perceptron()).items()}
    free, held = trained(tmp_path / "a", perceptron(), None), trained(tmp_path / "b", perceptron(), Projection(full))
    assert all(torch.equal(free[name], held[name]) for name in free)


def test_after_training_the_model_is_free(tmp_path: Path) -> None:
    model = perceptron()
    callback = Projection(masks(model))
    trained(tmp_path, model, callback)
    assert not callback._held
    model(torch.randn(4, 40), torch.zeros(4, dtype=torch.long)).loss.backward()
    assert (model.layers[1].weight.grad[~callback.kept["layers.1.weight"]] != 0).any()


def test_masks_of_another_model_are_refused() -> None:
    with pytest.raises(OptionError, match=r"A mask of 'layers.9.weight' has shape \(2, 2\), but the model has no such"):
        Projection({"layers.9.weight": torch.ones(2, 2, dtype=torch.bool)}).attach(perceptron())
    with pytest.raises(OptionError, match=r"has shape \(2, 2\), but the model has it in shape \(64, 40\)"):
        Projection({"layers.0.weight": torch.ones(2, 2, dtype=torch.bool)}).attach(perceptron())
