import json
from pathlib import Path

import pytest
import rounds
from result import ResultsDifferError

from ks_lottery.training.runs import TrainerRuns, trainer_runs


def tiny_runs(folder: Path) -> TrainerRuns:
    data = rounds.examples(24, 64)
    return trainer_runs(folder, lambda: rounds.model(True), data, lambda place: rounds.arguments(place, 3))


def test_a_round_keeps_a_quarter_and_holds_the_rest(tmp_path: Path) -> None:
    runs = tiny_runs(tmp_path)
    assert rounds.check(runs) == "held weights end at zero, or bit for bit at their pretrained values"
    kept = rounds.half(runs, "weight").kept
    assert rounds.one_round(runs, "weight") == kept.count // 2


def test_weights_that_are_not_held_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ks_lottery.training.runs.Projection.project", lambda self: None)
    with pytest.raises(ResultsDifferError, match="Ours and held weights of model.layers.0"):
        rounds.check(tiny_runs(tmp_path))


def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["rounds.py", "--quick", "--repeats", "1", "--output", str(tmp_path)])
    rounds.main()
    methods = json.loads((tmp_path / "rounds.json").read_text(encoding="utf-8"))["tables"][0]["methods"]
    assert [method["name"] for method in methods] == [rounds.PLAIN, rounds.WEIGHT, rounds.UPDATE]
    assert "A round of iterative pruning" in capsys.readouterr().out
