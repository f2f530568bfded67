import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import run_all

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_between_its_markers_is_replaced() -> None:
    page = f"# Title\n\n{run_all.BEGIN}\nold\n{run_all.END}\nafter\n"
    assert run_all.fill(page, "new") == f"# Title\n\n{run_all.BEGIN}\n\nnew\n{run_all.END}\nafter\n"
    assert run_all.fill(run_all.fill(page, "one"), "two") == run_all.fill(page, "two")
    with pytest.raises(ValueError, match="The page needs the two lines '<!-- begin"):
        run_all.fill("# Title\n", "new")


def test_every_benchmark_runs_and_its_tables_reach_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "benchmarks"
    output.mkdir()
    page = output.with_suffix(".md")
    page.write_text(f"{run_all.BEGIN}\n{run_all.END}\n", encoding="utf-8")
    commands: list[list[str]] = []

    def finish(command: list[str], check: bool) -> None:
        commands.append([Path(command[1]).name, *command[2:]])
        machine = {"cpu": "C", "cores": 2, "system": "S", "load": 0.0, "python": "3", "versions": {}, "command": "run"}
        result = {"title": f"Title of {Path(command[1]).stem}", "machine": machine, "tables": []}
        (output / f"{Path(command[1]).stem}.json").write_text(json.dumps(result))

    monkeypatch.setattr(run_all, "subprocess", SimpleNamespace(run=finish))
    monkeypatch.setattr(sys, "argv", ["run_all.py", "--quick", "--output", str(output)])
    run_all.main()
    assert commands == [[f"{name}.py", "--output", str(output), "--quick"] for name in run_all.NAMES]
    headings = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("## ")]
    assert headings == [f"## Title of {name}" for name in run_all.NAMES]
    assert all((ROOT / "benchmarks" / f"{name}.py").is_file() for name in run_all.NAMES)


def test_the_page_in_the_documents_has_its_markers() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert run_all.fill(page, "tables").count("tables") >= 1
