"""One of two processes dies: the other one ends with an error within a minute, with a launcher and without one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.recipes.tiny_run import free_port
from tests.tiny_models import shifted, tiny_llama
from tests.training.workers.launch import CPU, ROOT

MODULE = "tests.reliability.workers.dying"
MINUTE = 60
DEEDS = ("find", "probe", "tune")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    model = tiny_llama()
    model.save_pretrained(folder / "before")
    shifted(model, [3, 5]).save_pretrained(folder / "after")
    return folder


def start(command: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), **CPU, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str], seconds: float) -> tuple[int, str]:
    """Exit code and all that was said; a process that is not done in time is a failure."""
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        raise AssertionError(f"not finished after {seconds:.0f} s: {said[-4000:]}") from None
    return process.returncode, said


def until_dead(process: subprocess.Popen[str], mark: Path) -> None:
    """Wait until the second process has begun to die: before, all have to import everything, and to meet."""
    deadline = time.monotonic() + 3 * MINUTE
    while not mark.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    if not mark.exists():
        raise AssertionError(f"the second process did not come so far: {ended(process, 1)[1][-4000:]}")


@pytest.mark.parametrize("deed", DEEDS)
def test_the_other_process_ends_by_itself(folder: Path, tmp_path: Path, deed: str) -> None:
    """Started without a launcher, as `srun` or `mpirun` do: nobody ends it from outside."""
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    place = folder if deed == "find" else tmp_path
    first, second = (
        start(["-m", MODULE, deed, str(place), str(tmp_path / "dead")], RANK=rank, LOCAL_RANK=rank, **together)
        for rank in ("0", "1")
    )
    until_dead(second, tmp_path / "dead")
    code, said = ended(second, MINUTE)
    assert code == -signal.SIGKILL, said[-4000:]
    code, said = ended(first, MINUTE)
    assert code == 1, said[-4000:]
    assert "RuntimeError: " in said
    assert "Connection closed by peer" in said or "Connection reset by peer" in said
    assert not (tmp_path / "probe" / "after").exists()


@pytest.mark.parametrize("deed", DEEDS)
def test_a_launcher_ends_all_and_names_the_one_that_died(folder: Path, tmp_path: Path, deed: str) -> None:
    common = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--main_process_port", "0"]
    common += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    place = folder if deed == "find" else tmp_path
    command = ["-m", "accelerate.commands.launch", *common, "-m", MODULE, deed, str(place), str(tmp_path / "dead")]
    launched = start(command)
    until_dead(launched, tmp_path / "dead")
    code, said = ended(launched, MINUTE)
    assert code == 1, said[-4000:]
    assert "Signal 9 (SIGKILL) received by PID" in said, said[-4000:]
    assert f"{MODULE} FAILED" in said
