import embedding_layer
import pytest
import torch
from embedding_layer import LIMIT, OURS, PEER, QUICK
from result import ResultsDifferError


def test_both_layers_are_compared_with_the_frozen_one() -> None:
    figures = embedding_layer.compare(QUICK, 1, {OURS: 3.0, PEER: 20.0}).figures()
    assert [method["name"] for method in figures["methods"]] == [LIMIT, OURS, PEER]
    targets = [(one["target"], one["met"]) for one in figures["methods"][1]["targets"]]
    assert targets == [("≥ 0.01 × faster than TrainableTokens", True), ("≤ 16 MiB", True)]
    assert figures["methods"][2]["beyond the frozen one, MiB"] == "20.0"


def test_what_a_layer_takes_is_that_of_a_process_of_its_own() -> None:
    assert 0 <= embedding_layer.growth_apart(QUICK, OURS) < 100


def test_a_layer_that_differs_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = embedding_layer.make(QUICK)
    with torch.no_grad():
        layers.made[OURS][1].add_(0.5)
    monkeypatch.setattr(embedding_layer, "make", lambda size: layers)
    with pytest.raises(ResultsDifferError, match="Ours and TrainableTokens differ in"):
        embedding_layer.compare(QUICK, 1, {})
