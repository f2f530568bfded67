"""Starting workers in several processes, with an end whatever happens."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CPU = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def accelerate_launch(options: Sequence[str], module: str, *arguments: str | Path) -> None:
    """`accelerate launch` of a module of the tests, in two CPU processes unless the options say otherwise."""
    common = ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    port = ["--main_process_port", "0"]
    run(["-m", "accelerate.commands.launch", *common, *port, *options, "-m", module, *map(str, arguments)], CPU)


def run(command: Sequence[str], environment: Mapping[str, str], seconds: float = 300.0) -> None:
    """Run Python in a group of processes of its own, and end the whole group after some time.

    Raises:
        AssertionError: if it fails or takes too long; with the end of what it said.
    """
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        raise AssertionError(f"not finished after {seconds:.0f} s: {said[-6000:]}") from None
    assert process.returncode == 0, said[-6000:]
