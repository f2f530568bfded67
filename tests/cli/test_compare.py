"""`ks-lottery compare`: results and a report in a folder, and one line about what is wrong."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ks_lottery.evaluation.comparison import workers
from ks_lottery.finders.base import FINDERS
from tests.cli.conftest import Outcome
from tests.evaluation.comparison.planted import Broken
from tests.evaluation.comparison.tiny_files import CELLS, save_comparison

Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_comparison(tmp_path_factory.mktemp("plan"))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the program changes in its environment ends with the test."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.delenv(workers.PARENT, raising=False)


def changed(plan: Path, folder: Path, **changes: object) -> Path:
    """The configuration with some keys replaced."""
    values = {**yaml.safe_load(plan.read_text()), **changes}
    (folder / "changed.yaml").write_text(yaml.safe_dump(values))
    return folder / "changed.yaml"


def test_a_comparison_and_its_report(plan: Path, tmp_path: Path, run: Run) -> None:
    outcome = run("compare", plan, "--out", tmp_path, "--workers", 1)
    assert (outcome.code, outcome.err.count("Error")) == (0, 0)
    lines = outcome.out.splitlines()
    assert lines[0].startswith("[1/8] de, no tuning, replicate 0: bleu_whole ")
    assert lines[4].startswith("[5/8] de, magnitude, shuffled at 0.1, replicate 0: bleu_whole ")
    assert lines[-1] == f"report: {tmp_path / 'report' / 'comparison.md'}"
    page = (tmp_path / "report" / "comparison.md").read_text(encoding="utf-8")
    assert f"ks-lottery compare {plan} --out {tmp_path}" in page
    assert len(json.loads((tmp_path / "report" / "comparison.json").read_text())["records"]) == CELLS
    assert (tmp_path / "results.parquet").is_file()

    as_json = run("compare", plan, "--out", tmp_path, "--workers", 1, "--json")
    content = json.loads(as_json.out)
    assert content["report"] == str(tmp_path / "report" / "comparison.md")
    assert len(content["records"]) == CELLS
    assert as_json.err == f"report: {tmp_path / 'report' / 'comparison.md'}\n"

    again = run("compare", plan, "--out", tmp_path, "--shard", "1/2")
    assert again.out.splitlines() == lines[-1:]
    other = run("compare", changed(plan, tmp_path, replicates=[1]), "--out", tmp_path, "--workers", 1)
    assert other.code == 2
    assert "holds another comparison: replicates[0] was 0 and is 1. Give another folder" in other.words


def test_json_stands_alone_while_cells_are_made(plan: Path, tmp_path: Path, run: Run) -> None:
    outcome = run("compare", plan, "--out", tmp_path, "--shard", "0/8", "--json")
    assert outcome.code == 0
    assert len(json.loads(outcome.out)["records"]) == 1
    assert json.loads(outcome.out)["report"] is None
    assert "[1/1] de, no tuning, replicate 0: bleu_whole " in outcome.err


def test_a_worker_leaves_the_report_to_who_started_it(plan: Path, tmp_path: Path, run: Run) -> None:
    os.environ[workers.PARENT] = str(os.getppid())
    outcome = run("compare", plan, "--out", tmp_path, "--shard", "0/8")
    assert [line[:5] for line in outcome.out.splitlines()] == ["[1/1]"]
    assert not (tmp_path / "report").exists()


def test_failed_cells_are_told(plan: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FINDERS._entries, "broken", Broken)
    table = {"units": "token_rows", "densities": [0.1], "finders": ["broken"]}
    outcome = run("compare", changed(plan, tmp_path, tables=[table]), "--out", tmp_path / "out", "--workers", 1)
    assert outcome.code == 0
    assert (
        "3 of 8 cells failed, the first: broken on de, replicate 0: ZeroDivisionError: an accident in two lines. A "
        "rerun tries them again."
    ) in outcome.out


def test_copies_are_started_after_the_plan_was_checked(
    plan: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    monkeypatch.setattr(workers, "run_workers", lambda *given: started.append(given))
    monkeypatch.setattr(workers, "default_workers", lambda: 64)
    outcome = run("compare", plan, "--out", tmp_path / "a")
    assert outcome.code == 0
    ((command, count),) = started
    assert count == CELLS
    assert command[1:] == ["ks-lottery", "compare", str(plan), "--out", str(tmp_path / "a")]
    few = changed(plan, tmp_path, budget={"batch_size": 8, "partitions": 1})
    outcome = run("compare", few, "--out", tmp_path / "b", "--workers", 2)
    assert outcome.code == 1
    assert "The task 'de' has 7 training examples, fewer than one batch of 8" in outcome.words
    assert len(started) == 1
    assert run("compare", plan, "--out", tmp_path / "c", "--json").code == 0
    assert started[-1][0][-1] == "--json"  # type: ignore[index]


def test_a_job_array_is_printed(plan: Path, run: Run) -> None:
    outcome = run("compare", plan, "--out", "some folder", "--slurm", 3)
    assert outcome.code == 0
    last = outcome.out.splitlines()[-1]
    assert "#SBATCH --array=0-2" in outcome.out
    assert last.endswith(f"ks-lottery compare {plan} --out 'some folder' --shard \"$SLURM_ARRAY_TASK_ID/3\"")
    assert not Path("some folder").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shard", "2/2"], "--shard 2/2: must be i/n with i from 0 to n - 1, such as 0/4."),
        (["--workers", "0"], "--workers 0: must be at least 1."),
        (["--slurm", "-1"], "--slurm -1: must be at least 1."),
        (["--ray", "0"], "--ray 0: must be at least 1."),
        (["--slurm", "2", "--json"], "--json with --slurm 2: a job script is no JSON."),
        (["--workers", "2", "--shard", "0/2"], "Give one of --shard, --workers, --slurm and --ray"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str, plan: Path, tmp_path: Path, run: Run) -> None:
    outcome = run("compare", plan, "--out", tmp_path / "out", *arguments)
    assert outcome.code == 2
    assert message in outcome.words
    assert not (tmp_path / "out").exists()


def test_wrong_configurations(plan: Path, tmp_path: Path, run: Run) -> None:
    wrong = {
        "replicate": [0],
        "budget": {"steps": 2, "batches": 0},
        "tables": [{"units": "heads", "densities": [0.01], "finders": ["random"]}],
        "tasks": {"de": {"kind": "translatoin", "language": "de"}},
    }
    said = {
        "replicate": "The comparison has the unknown option 'replicate'. Did you mean 'replicates'?",
        "budget": "budget, batches: 0: must be above 0.",
        "tables": "The table of update tickets of heads: density 0.01 leaves none of 4 units. Give at least 0.25.",
        "tasks": "Unknown kind of task 'translatoin'. Did you mean 'translation'?",
    }
    for key, value in wrong.items():
        outcome = run("compare", changed(plan, tmp_path, **{key: value}), "--out", tmp_path / key, "--workers", 1)
        assert (outcome.code, said[key] in outcome.words) == (2, True), outcome.words
    missing = run("compare", tmp_path / "none.yaml", "--out", tmp_path / "out")
    assert (missing.code, "There is no configuration file" in missing.words) == (2, True)
