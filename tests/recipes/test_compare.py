"""The comparison recipe as a user starts it: killed and gone on with, under a launcher, on Ray; and its tasks."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import comparison_tasks
import pytest
from pocket.corpus import load_split

from ks_lottery.errors import DataError, OptionError
from ks_lottery.evaluation.comparison.cells import cells_of as plan_cells
from ks_lottery.evaluation.comparison.plan import read_plan
from ks_lottery.evaluation.comparison.workers import run_with_ray
from ks_lottery.evaluation.tasks.base import TASKS, make_task
from tests.evaluation.comparison.tiny_files import CELLS, save_comparison
from tests.evaluation.tasks.tiny_texts import TEXTS, save_encoder, save_texts
from tests.training.workers.launch import CPU, ROOT, run

RECIPE = str(ROOT / "recipes" / "compare.py")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_comparison(tmp_path_factory.mktemp("plan")))


def lines_of(folder: Path) -> dict[str, list[str]]:
    """Whole lines of each worker's results."""
    return {file.name: file.read_text().split("\n")[:-1] for file in sorted((folder / "results").glob("*.jsonl"))}


def cells_of(folder: Path) -> list[str]:
    return [json.loads(line)["cell"] for lines in lines_of(folder).values() for line in lines]


def test_a_killed_comparison_goes_on_under_a_launcher(plan: str, tmp_path: Path) -> None:
    """One worker is killed in its third cell or later; two processes of `accelerate launch` do the rest."""
    command = [sys.executable, RECIPE, plan, "--out", str(tmp_path), "--workers", "1"]
    started = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **CPU}, start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 100
    while len(cells_of(tmp_path)) < 2 and time.monotonic() < deadline:
        assert started.poll() is None
        time.sleep(0.02)
    started.kill()
    assert started.wait() == -signal.SIGKILL
    before = lines_of(tmp_path)
    assert 2 <= sum(map(len, before.values())) < CELLS
    assert not (tmp_path / "report").exists()

    launch = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--main_process_port", "0"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    run(["-m", "accelerate.commands.launch", *launch, RECIPE, plan, "--out", str(tmp_path)], CPU)
    after = lines_of(tmp_path)
    assert all(after[name][: len(lines)] == lines for name, lines in before.items())
    made = cells_of(tmp_path)
    assert len(made) == len(set(made)) == CELLS
    assert not [line for lines in after.values() for line in lines if json.loads(line)["error"]]
    assert (tmp_path / "report" / "comparison.md").is_file()
    assert (tmp_path / "results.parquet").is_file()


def test_two_workers_of_ray(plan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        run_with_ray([sys.executable, RECIPE, plan, "--out", str(tmp_path)], 2)
    finally:
        ray.shutdown()
    made = cells_of(tmp_path)
    assert len(made) == len(set(made)) == CELLS
    assert {name: len(lines) for name, lines in lines_of(tmp_path).items()} == {"0-of-2.jsonl": 4, "1-of-2.jsonl": 4}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("texts")
    save_texts(folder)
    options = {"kind": "labelled_texts", "folder": str(folder), "model": str(save_encoder(folder / "encoder"))}
    return {**options, "label_column": "label", "train_examples": 60, "dev_examples": 20, "test_examples": 24}


def test_labelled_texts_as_one_task_and_as_parts(texts: dict[str, object]) -> None:
    whole = make_task("all", texts)
    assert [len(part) for part in (whole.train, whole.dev, whole.test)] == [60, 20, 24]
    assert whole.labels == ["cold", "none", "warm"]
    assert set(whole.train) <= set(TEXTS)
    # Labels 0 and 2 make the first part, and label 1 alone is no task.
    part = make_task("part", {**texts, "part": 0, "parts": 2})
    assert part.labels == ["cold", "warm"]
    assert part.train == [pair for pair in whole.train if pair[1] != "none"]
    assert part.digest != whole.digest == make_task("again", texts).digest
    with pytest.raises(DataError, match="All training texts of the task 'part' have the label 'none'"):
        make_task("part", {**texts, "part": 1, "parts": 2})
    with pytest.raises(DataError, match="The task 'part': part 2 of 2 does not exist; count from 0"):
        make_task("part", {**texts, "part": 2, "parts": 2})
    assert type(whole) is comparison_tasks.ClassificationTask


def test_the_embedded_corpora() -> None:
    options = {"kind": "embedded", "language": "fr", "train_pairs": 20, "dev_sentences": 3, "test_sentences": 4}
    task = make_task("en-fr", options)
    sources = [len({source for source, _ in part}) for part in (task.dev, task.test)]
    assert (len(task.train), *sources) == (20, 3, 4)
    test = {(pair.source, pair.target) for pair in load_split("fr", "test")}
    assert set(task.test) == {pair for pair in test if pair[0] in {source for source, _ in task.test}}
    assert set(task.train) <= {(pair.source, pair.target) for pair in load_split("fr", "train")}
    assert make_task("other", options).digest == task.digest != make_task("en-fr", {**options, "data_seed": 1}).digest
    with pytest.raises(DataError, match="The task 'en-it', language: 'it'"):
        make_task("en-it", {**options, "language": "it"})
    with pytest.raises(DataError, match="has no pairs in its dev split"):
        make_task("en-fr", {**options, "dev_sentences": 0})
    with pytest.raises(OptionError, match="of kind 'embedded' has the unknown option 'train_pair'. Did you mean"):
        make_task("en-fr", {**options, "train_pair": 3})


def test_tatoeba_without_its_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"The task 'en-de', folder: '.*': No deu-eng.zip at .* Download it from"):
        make_task("en-de", {"kind": "tatoeba", "language": "de", "folder": str(tmp_path)})


@pytest.mark.parametrize(
    "config", sorted((ROOT / "recipes" / "configs").glob("compare*.yaml")), ids=lambda path: path.stem
)
def test_the_configurations_can_be_read(config: Path) -> None:
    plan = read_plan(config)
    assert len(list(plan_cells(plan))) > 50
    assert {options["kind"] for options in plan.tasks.values()} <= set(TASKS.names())


def test_a_mistake_ends_in_one_line(tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, RECIPE, "none.yaml", "--out", str(tmp_path / "out")], capture_output=True, text=True
    )
    assert said.returncode == 2
    assert "There is no configuration file 'none.yaml'" in " ".join(said.stderr.split())
    assert "Traceback" not in said.stderr
    assert not (tmp_path / "out").exists()
