import prefix
import pytest
import torch
from result import ResultsDifferError


def test_a_step_is_compared_with_the_limit_for_every_place() -> None:
    figures = prefix.compare(prefix.SMALL, repeats=1).figures()
    names = [method["name"] for method in figures["methods"]]
    assert names == [prefix.LIMIT, prefix.ORDINARY, *map(prefix.ours, prefix.PLACES)]
    targets = {method["name"]: method["targets"][0]["target"] for method in figures["methods"] if method["targets"]}
    assert targets == {"rows, first half way": "≥ 1.3 × faster than limit"}
    assert figures["checked"].startswith("gradients equal the ordinary ones to ")


def test_the_first_ticket_token_is_where_the_table_says() -> None:
    chosen = {place: prefix.tokens(prefix.SMALL, share) < prefix.ROWS for place, share in prefix.PLACES.items()}
    first = {place: int(hits.any(dim=0).int().argmax()) for place, hits in chosen.items() if hits.any()}
    assert first == {"at the start": 0, "at 1/4": 32, "half way": 64, "at 3/4": 96}


def test_a_wrong_gradient_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([torch.ones(2), torch.full((2,), 1.001)] * 5)
    monkeypatch.setattr(prefix, "gradient", lambda *_: next(found))
    with pytest.raises(ResultsDifferError, match="Gradients differ from the ordinary ones by 1.0e-03, more than 2e-06"):
        prefix.compare(prefix.SMALL, repeats=1)
