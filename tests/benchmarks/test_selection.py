import numpy as np
import pytest
import selection
from result import ResultsDifferError


def test_the_methods_are_compared_with_each_other() -> None:
    values = selection.scores(70_000)
    figures = selection.compare(values, 0.05, 1, dict.fromkeys(selection.METHODS, 0.1)).figures()
    assert [method["name"] for method in figures["methods"]] == [*selection.METHODS, selection.LIMIT]
    targets = [judged["target"] for judged in figures["methods"][0]["targets"]]
    assert targets[2:] == ["< 3 s", "< 0.5 × the scores beyond them"]
    assert figures["caption"].startswith("The 3,500 largest of 70,000 float32 scores (density 0.05)")


def test_ties_go_to_the_first_positions_in_ours_and_by_partition() -> None:
    values = np.round(selection.scores(70_000), 1)
    np.testing.assert_array_equal(selection.ours(values, 9_000), selection.by_partition(values, 9_000))


def test_a_wrong_selection_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "ours", lambda values, k: np.arange(k))
    with pytest.raises(ResultsDifferError, match=r"Ours and numpy\.partition differ in .* of 50"):
        selection.compare(selection.scores(1000), 0.05, 1, {})


def test_growth_is_measured_in_a_process_of_its_own() -> None:
    assert selection.growth_apart(2**20, 0.05, selection.OURS) >= 0.0
