"""Run the fuzz targets for a bounded time, each in a process of its own.

    python tests/fuzz/run.py --seconds 60
    python tests/fuzz/run.py --seconds 3600 --corpus ~/ks-lottery-corpus    # what it learns is kept there

The exit status is 1 if a target crashed; the input that it crashed on then lies in FOLDER/TARGET-crashes, where FOLDER
is what --corpus names, and goes into `tests/fuzz/crashers/TARGET` once it is mended.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ("ticket", "adapter")
_LONGEST_INPUT = 16_384  # bytes
_MOST_MEMORY = 2_048  # MiB of the process, torch included
_MOST_AT_ONCE = 512  # MiB in one allocation
_MOST_SECONDS = 20  # for one input


def main() -> None:
    """Run them; exit with 1 if one crashed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="how long each target runs")
    parser.add_argument("--corpus", type=Path, help="folder in which the corpus is kept and continued")
    parser.add_argument("--target", choices=TARGETS, action="append", help="only this one; may be given twice")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.corpus or Path(temporary)).absolute()
        failed = [name for name in options.target or TARGETS if run(name, options.seconds, folder)]
    if failed:
        sys.exit(f"{', '.join(failed)}: an input was neither read nor refused with a LotteryError; see above.")


def run(target: str, seconds: int, folder: Path) -> int:
    """Run one target, from its seeds and what `folder/TARGET` already holds; its exit status."""
    corpus, crashes = folder / target, folder / f"{target}-crashes"
    for place in (corpus, crashes):
        place.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    python = [sys.executable, "-W", "ignore", "-m"]
    subprocess.run([*python, "tests.fuzz.seed_corpus", target, str(corpus)], cwd=ROOT, env=environment, check=True)
    limits = [
        f"-max_total_time={seconds}",
        f"-max_len={_LONGEST_INPUT}",
        f"-rss_limit_mb={_MOST_MEMORY}",
        f"-malloc_limit_mb={_MOST_AT_ONCE}",
        f"-timeout={_MOST_SECONDS}",
        f"-artifact_prefix={crashes}{os.sep}",
        "-print_final_stats=1",
    ]
    command = [*python, "tests.fuzz.fuzzing", target, str(corpus), *limits]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    main()
