import masks
import pytest
import torch
from result import ResultsDifferError

FEW = ("edge_popup, weights", "concrete (kl), weights of an update", "edge_popup, layers at .5")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "METHODS", {name: masks.METHODS[name] for name in FEW})


def test_every_finder_of_the_family_is_timed_beside_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = masks.compare(masks.QUICK, 2, 1).figures()
    assert [method["name"] for method in figures["methods"]] == [masks.TRAINING, *FEW]
    assert all(len(method["targets"]) == 1 for method in figures["methods"][1:])
    assert figures["caption"].startswith("Learning a mask at density .1. 2 steps of 2 x 16 tokens")


def test_a_mask_that_moves_weights_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def moving(self: masks.Bench, method: object, units: str) -> None:
        with torch.no_grad():
            next(self.model.parameters()).add_(1)

    monkeypatch.setattr(masks.Bench, "learn", moving)
    with pytest.raises(ResultsDifferError, match=r"Ours and the frozen model\.embed_tokens"):
        masks.check(masks.Bench.of(masks.QUICK, 1))


def test_a_dense_optimizer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    learn = masks.Bench.learn

    def dense(self: masks.Bench, method: object, units: str) -> None:
        torch.optim.SGD(list(self.after.parameters()))
        learn(self, method, units)  # type: ignore[arg-type]

    monkeypatch.setattr(masks.Bench, "learn", dense)
    with pytest.raises(ResultsDifferError, match="trained numbers of edge_popup, weights"):
        masks.check(masks.Bench.of(masks.QUICK, 1))
