"""Cells side by side: several processes on this machine, processes of `accelerate launch`, a job array, or Ray."""

import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path

from ks_lottery.errors import LotteryError, OptionError

_OF_ACCELERATE = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "MASTER_ADDR", "MASTER_PORT",
    "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "TORCHELASTIC_RUN_ID",
)  # fmt: skip
Shard = tuple[int, int]
PARENT = "KS_LOTTERY_PARENT"
"""Environment variable of a worker: the process that started it."""


def parse_shard(text: str) -> Shard:
    """Read `i/n`.

    Raises:
        OptionError: if it is no such pair.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise OptionError(f"--shard {text}: must be i/n with i from 0 to n - 1, such as 0/4.")
    return int(match[1]), int(match[2])


def shard_of_launcher(environment: MutableMapping[str, str]) -> Shard | None:
    """Which shard a process of `accelerate launch --num_processes n` is; None where there is one process.

    Cells train alone: the process forgets that it was launched with others, and sees one of the GPUs.

    Args:
        environment: `os.environ`; changed in place. To be called before torch is used.
    """
    count = int(environment.get("WORLD_SIZE", "1"))
    if count == 1:
        return None
    shard = int(environment["RANK"]), count
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    local = int(environment.get("LOCAL_RANK", "0"))
    environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[local] if visible else str(local)
    for name in _OF_ACCELERATE:
        environment.pop(name, None)
    return shard


def keep_one_gpu(environment: MutableMapping[str, str]) -> None:
    """Let this process see the first of its GPUs only: a Trainer that sees several multiplies the batch.

    Args:
        environment: `os.environ`; changed in place. To be called before a GPU is used.
    """
    environment["CUDA_VISIBLE_DEVICES"] = environment.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def default_workers() -> int:
    """One per GPU; where there is none one per core, since small models train faster side by side than on all cores."""
    return _gpus() or os.cpu_count() or 1


def run_workers(command: Sequence[str], count: int) -> None:
    """Run a command several times, each with its `--shard i/n`, and wait for all.

    Args:
        command: what to run.
        count: how often. Each copy sees an equal share of the cores, and one GPU where there are any.

    Raises:
        LotteryError: if a copy ends with an error; the others were waited for.
    """
    threads = str(max(1, (os.cpu_count() or 1) // count))
    running = []
    for index in range(count):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, PARENT: str(os.getpid())}
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        if visible:
            environment["CUDA_VISIBLE_DEVICES"] = visible[index % len(visible)]
        elif _gpus():
            environment["CUDA_VISIBLE_DEVICES"] = str(index % _gpus())
        running.append(subprocess.Popen([*command, "--shard", f"{index}/{count}"], env=environment))
    try:
        codes = [process.wait() for process in running]
    finally:
        for process in running:
            process.terminate()
    if any(codes):
        raise LotteryError(
            f"{sum(map(bool, codes))} of {count} workers failed (exit codes {', '.join(map(str, codes))}); what they "
            "finished is kept. Read their messages above, and start again to go on."
        )


def end_with_parent(environment: Mapping[str, str] = os.environ, poll_seconds: float = 1.0) -> None:
    """End this worker when the process that started it is gone, even by a kill that it could not pass on."""
    parent = environment.get(PARENT)
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(poll_seconds)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def job_array(command: Sequence[str], count: int, options: Sequence[str] = ()) -> str:
    """A Slurm script that runs a command as an array of jobs, one shard each; `sbatch` takes it.

    Args:
        command: what to run; the shard is added.
        count: number of jobs.
        options: further lines for Slurm, such as "--gres=gpu:1".
    """
    lines = [
        "#!/bin/bash",
        "#SBATCH --job-name=ks-lottery",
        f"#SBATCH --array=0-{count - 1}",
        *(f"#SBATCH {option}" for option in options),
        "set -euo pipefail",
        f'{shlex.join(command)} --shard "$SLURM_ARRAY_TASK_ID/{count}"',
    ]
    return "\n".join(lines) + "\n"


def run_with_ray(command: Sequence[str], count: int) -> None:
    """Run a command as Ray tasks, wherever the cluster has room, each with its `--shard i/n`, and wait for all.

    Args:
        command: what to run; the folder that it works in has to be shared by all nodes.
        count: number of shards.

    Raises:
        OptionError: if Ray is not installed.
        LotteryError: if a shard fails.
    """
    try:
        import ray
    except ImportError as error:
        raise OptionError(
            "Ray is not installed: pip install 'ks_lottery[ray]', or use --workers or --shard."
        ) from error
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=True)
    gpus = 1 if ray.cluster_resources().get("GPU") else 0  # this machine may have none where the others do
    task = ray.remote(num_cpus=1, num_gpus=gpus)(_run_shard)
    folder = os.getcwd()
    codes = ray.get([task.remote(list(command), folder, f"{index}/{count}") for index in range(count)])
    if any(codes):
        raise LotteryError(
            f"{sum(map(bool, codes))} of {count} shards failed on Ray (exit codes {', '.join(map(str, codes))}); what "
            "they finished is kept. Start again to go on."
        )


def _run_shard(command: list[str], folder: str, shard: str) -> int:
    environment = {**os.environ, PARENT: str(os.getpid())}
    return subprocess.run([*command, "--shard", shard], cwd=folder, env=environment, check=False).returncode


def this_program(arguments: Sequence[str]) -> list[str]:
    """The command that runs this program again with these arguments."""
    script = Path(sys.argv[0])
    return [sys.executable, str(script), *arguments]


def _gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
