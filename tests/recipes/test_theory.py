"""The recipe of theory, small: records hold what was measured, and pictures stand beside them."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import theory


def test_quick_runs_write_records_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["subset-sum", "constructions", "universal"]
    theory.main(["--quick", "--out", str(tmp_path), *(part for name in names for part in ("--only", name))])
    assert capsys.readouterr().out.splitlines() == [f"{name}: {tmp_path}" for name in names]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "constructions.json", "sparse-sources.png", "subset-sum.json", "subset-sum.png", "universal.json",
        "universal.png", "widths.png",
    ]  # fmt: skip
    for picture in tmp_path.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
    sums = json.loads((tmp_path / "subset-sum.json").read_text())["products"]
    assert sums["slope"] == pytest.approx(-1.0, abs=0.15)
    assert sums["slope_greedy"] > -0.5
    assert sums["fewest"][0]["rule"] == 20
    sources = json.loads((tmp_path / "constructions.json").read_text())
    assert set(sources["widths"]) == {"malach", "orseau", "pensia"}
    for rows in sources["widths"].values():
        assert rows["kept_promise"] == [1.0]
        assert rows["worst_asked"][0] <= rows["eps"][0] == 0.3
    assert sources["sparse_sources"]["densities"]["1"]["found"][-1] == 1.0
    tickets = json.loads((tmp_path / "universal.json").read_text())
    assert max(tickets["sine"]["error"]) < 0.15
    for tasks in tickets["r2"].values():
        assert min(task["ticket"] for task in tasks) > 0.99


def test_the_experiment_of_attention_is_imported_when_asked_for(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    other = ModuleType("theory_attention")
    other.run = lambda out, quick: calls.append((out, quick))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "theory_attention", other)
    theory.main(["--only", "attention", "--out", str(tmp_path / "new")])
    assert calls == [(tmp_path / "new", False)]


def test_unknown_experiments_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        theory.main(["--only", "magic"])
    assert "invalid choice: 'magic'" in capsys.readouterr().err
