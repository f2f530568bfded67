"""Shards and who runs them: processes of this machine, of a launcher, of a job array, of Ray."""

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from ks_lottery.errors import LotteryError, OptionError
from ks_lottery.evaluation.comparison import workers
from ks_lottery.evaluation.comparison.workers import (
    PARENT,
    end_with_parent,
    job_array,
    keep_one_gpu,
    parse_shard,
    run_with_ray,
    run_workers,
    shard_of_launcher,
    this_program,
)

# Writes what it was started with into a file that is called after its shard.
NOTE = (
    "import os, sys; from pathlib import Path; shard = sys.argv[-1];"
    "names = ('OMP_NUM_THREADS', 'CUDA_VISIBLE_DEVICES', 'KS_LOTTERY_PARENT');"
    "said = [*sys.argv[2:], *(os.environ.get(name, '-') for name in names), str(os.getppid())];"
    "Path(sys.argv[1], shard.replace('/', '-of-')).write_text(' '.join(said));"
)


def noted(folder: Path) -> dict[str, list[str]]:
    return {file.name: file.read_text().split() for file in sorted(folder.iterdir())}


@pytest.mark.parametrize(("text", "shard"), [("0/1", (0, 1)), ("3/4", (3, 4)), ("10/12", (10, 12))])
def test_shards_are_read(text: str, shard: tuple[int, int]) -> None:
    assert parse_shard(text) == shard


@pytest.mark.parametrize("text", ["4/4", "1", "-1/2", "a/b", "1/2/3", "0/0", ""])
def test_shards_that_do_not_exist(text: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_shard(text)
    assert str(caught.value) == f"--shard {text}: must be i/n with i from 0 to n - 1, such as 0/4."


def test_processes_of_a_launcher_are_shards_and_forget_each_other() -> None:
    launched = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_PORT": "1", "OTHER": "stays"}
    environment = dict(launched)
    assert shard_of_launcher(environment) == (3, 4)
    assert environment == {"OTHER": "stays", "CUDA_VISIBLE_DEVICES": "1"}
    environment = {**launched, "CUDA_VISIBLE_DEVICES": "5,7"}
    assert shard_of_launcher(environment) == (3, 4)
    assert environment["CUDA_VISIBLE_DEVICES"] == "7"
    alone = {"WORLD_SIZE": "1", "RANK": "0"}
    assert shard_of_launcher(alone) is shard_of_launcher({}) is None
    assert alone == {"WORLD_SIZE": "1", "RANK": "0"}


@pytest.mark.parametrize(("given", "kept"), [(None, "0"), ("", ""), ("2", "2"), ("3,1", "3"), ("GPU-a,GPU-b", "GPU-a")])
def test_one_gpu_is_kept(given: str | None, kept: str) -> None:
    environment = {} if given is None else {"CUDA_VISIBLE_DEVICES": given}
    keep_one_gpu(environment)
    assert environment == {"CUDA_VISIBLE_DEVICES": kept}


def test_copies_share_cores_and_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    run_workers([sys.executable, "-c", NOTE, str(tmp_path), "word"], 3)
    here = str(os.getpid())
    assert noted(tmp_path) == {
        f"{index}-of-3": ["word", "--shard", f"{index}/3", "2", gpu, here, here] for index, gpu in enumerate("464")
    }


def test_a_copy_that_fails_is_told_when_all_are_done(tmp_path: Path) -> None:
    fails = NOTE + "sys.exit(7 if shard.startswith('1') else 0)"
    with pytest.raises(LotteryError, match=r"1 of 3 workers failed \(exit codes 0, 7, 0\); what they finished is kept"):
        run_workers([sys.executable, "-c", fails, str(tmp_path)], 3)
    assert list(noted(tmp_path)) == ["0-of-3", "1-of-3", "2-of-3"]


def test_a_worker_ends_when_its_parent_was_killed(tmp_path: Path) -> None:
    """The parent starts a worker that would sleep for a minute, and kills itself."""
    worker = (
        "import os, time; from ks_lottery.evaluation.comparison.workers import end_with_parent;"
        "end_with_parent(poll_seconds=0.05); print(os.getpid(), flush=True); time.sleep(60); print('slept')"
    )
    parent = (
        "import os, signal, subprocess, sys;"
        "environment = {**os.environ, 'KS_LOTTERY_PARENT': str(os.getpid())};"
        f"child = subprocess.Popen([sys.executable, '-c', {worker!r}], env=environment, "
        "stdout=subprocess.PIPE, pass_fds=[int(sys.argv[1])]);"
        "child.stdout.readline(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    reader, writer = os.pipe()  # the worker holds its end open as long as it lives
    ended = subprocess.run([sys.executable, "-c", parent, str(writer)], pass_fds=(writer,), timeout=60)
    os.close(writer)
    assert ended.returncode == -9
    assert select.select([reader], [], [], 20)[0], "the worker still runs"
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_nobody_watches_a_process_that_nobody_started() -> None:
    import threading

    before = threading.active_count()
    end_with_parent({})
    assert threading.active_count() == before


def test_a_job_array_runs_every_shard(tmp_path: Path) -> None:
    script = job_array([sys.executable, "-c", NOTE, str(tmp_path), "a word's"], 3, ["--gres=gpu:1"])
    assert script.splitlines()[:4] == [
        "#!/bin/bash", "#SBATCH --job-name=ks-lottery", "#SBATCH --array=0-2", "#SBATCH --gres=gpu:1"
    ]  # fmt: skip
    (tmp_path / "job.sh").write_text(script)
    for index in range(3):
        environment = {**os.environ, "SLURM_ARRAY_TASK_ID": str(index)}
        subprocess.run(["bash", str(tmp_path / "job.sh")], check=True, env=environment)
    (tmp_path / "job.sh").unlink()
    found = noted(tmp_path)
    assert list(found) == ["0-of-3", "1-of-3", "2-of-3"]
    assert found["1-of-3"][:4] == ["a", "word's", "--shard", "1/3"]
    outside = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert outside.returncode != 0
    assert "SLURM_ARRAY_TASK_ID" in outside.stderr


def test_this_program_can_be_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["recipes/compare.py", "old"])
    assert this_program(["new", "--out", "x"]) == [sys.executable, "recipes/compare.py", "new", "--out", "x"]


def test_without_ray_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(OptionError, match=r"pip install 'ks_lottery\[ray\]', or use --workers or --shard"):
        run_with_ray(["true"], 2)


def test_default_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    monkeypatch.setattr(workers, "_gpus", lambda: 0)
    assert workers.default_workers() == 5
    monkeypatch.setattr(workers, "_gpus", lambda: 2)
    assert workers.default_workers() == 2
    assert PARENT == "KS_LOTTERY_PARENT"
