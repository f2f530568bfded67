import pytest
import saliency
import torch
from result import ResultsDifferError


@pytest.mark.parametrize("title", saliency.COMPARISONS)
def test_every_finder_is_compared_with_its_bare_passes(title: str) -> None:
    figures = saliency.compare(saliency.QUICK, title, 1).figures()
    limit, _, methods = saliency.COMPARISONS[title]
    assert [method["name"] for method in figures["methods"]] == [limit, *methods]
    assert all(len(method["targets"]) == 1 for method in figures["methods"][1:])
    assert figures["caption"].startswith(f"{title}. 2 batches of 2 x 16 tokens, 2 layers of width 96")


def test_scores_of_another_model_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = saliency.Bench.of(saliency.QUICK)
    gradients = {name: 2 * torch.ones_like(value) for name, value in bench.first_order().items()}
    monkeypatch.setattr(saliency.Bench, "first_order", lambda self: gradients)
    with pytest.raises(ResultsDifferError, match="Ours and bare snip differ in"):
        saliency.check(bench)
