"""Is the ticket winning? The study of docs/study.md: every control, three replicates, three languages.

    python recipes/study.py --tatoeba DIR                      # make what is missing, one process per core
    python recipes/study.py --tatoeba DIR --minutes 110        # begin nothing after so long; start again to go on
    python recipes/study.py --tatoeba DIR --render docs        # study.md and results/study/ of the cells that are there

`DIR` holds `deu-eng.zip`, `fra-eng.zip` and `spa-eng.zip` of https://www.manythings.org/anki/. A killed run goes on
where it stopped. Every cell leaves a run directory with its configuration, seed and commit; each line that is printed
says how long the rest will take.
"""

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def main() -> None:
    """Make the cells, or render them."""
    options = _options()
    if options.workers > 1 and options.render is None:
        _start_workers(options)
        return
    from replication.parts import plan_study
    from replication.setting import described, read_setting

    from ks_lottery.checkpoints.writer import write_json
    from ks_lottery.evaluation.comparison.workers import end_with_parent

    end_with_parent()
    changes = {name: getattr(options, name) for name in ("tatoeba", "model") if getattr(options, name)}
    setting = read_setting(options.setting, **changes)
    plan = plan_study(setting, options.out)
    if options.render is not None:
        from replication.page import render
        from replication.sections import SECTIONS

        print(render(plan, options.render, SECTIONS))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "setting.json", described(setting))
    missing = plan.lab.cells.work(options.minutes, options.of, lambda text: print(text, flush=True))
    if missing:
        print(f"{missing} of {len(plan.lab.cells.cells)} cells are missing. Start again to go on.", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", type=Path, default=ROOT / "configs" / "study.yaml", help="YAML file of the study")
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="folder of the study")
    parser.add_argument("--tatoeba", default="", help="folder with the Tatoeba zips")
    parser.add_argument("--model", default="", help="folder of another base model, for example a larger one")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no cell after so many minutes")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes; one per core")
    parser.add_argument("--of", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--shard", default="", help=argparse.SUPPRESS)
    parser.add_argument("--render", type=Path, help="write the page of the cells that are there into this folder")
    return parser.parse_args()


def _start_workers(options: argparse.Namespace) -> None:
    """One process per core: small models train faster side by side than on all cores."""
    from ks_lottery.evaluation.comparison.workers import run_workers

    command = [sys.executable, *sys.argv, "--workers", "1", "--of", str(options.workers)]
    run_workers(command, options.workers)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from ks_lottery.errors import LotteryError

    try:
        main()
    except LotteryError as error:
        sys.exit(f"{type(error).__name__}: {error}")
