"""What fills a small model's ticket: learning rate, Adam's beta2 and the minimum count, on the embedded default.

    python benchmarks/ticket_knobs.py --output runs/knobs

First table: for each learning rate and beta2 of the probe, how many rows have p < 0.05 and how many of the 50 with the
largest D were seen fewer than 10 times. Second table: BLEU of partial tuning for tickets of 18 and 50 rows, by beta2 of
the probe and minimum count, at one learning rate of the probe. Prints Markdown and writes `knobs.json`.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recipes"))

from options import parse_options
from translate import RunArguments
from translation_data import DataArguments
from translation_options import EvaluationArguments, ModelArguments, TuningArguments
from translation_run import TranslationRun
from translation_ticket import TicketArguments

from ks_lottery.checkpoints.writer import write_json
from ks_lottery.finders.search import score_units, select_ticket
from ks_lottery.finders.select import TopK
from ks_lottery.report.results import EMBED_TUNING
from ks_lottery.stats.multiplicity import rejected

KINDS = (ModelArguments, DataArguments, TicketArguments, TuningArguments, EvaluationArguments, RunArguments)
RATES = (0.001, 0.003, 0.01)
BETAS = (0.95, 0.999)
RARE = 10


def run_with(folder: Path, beta2: float, rates: tuple[float, ...], arguments: list[str]) -> TranslationRun:
    """A run whose probe uses this beta2; rows are always trained with the default one."""
    *options, _ = parse_options(KINDS, arguments, default="pocket.yaml", quick="quick.yaml")
    options[3].adam_beta2, options[3].embed_rates = beta2, list(rates)
    return TranslationRun(folder, *options)


def count_rows(run: TranslationRun, rate: float, beta2: float) -> tuple[dict[str, Any], Any]:
    """One line of the first table, and the scores with both ends of the probe."""
    folder = run.stages.folder / "tuned" / "embed-tuning" / f"{rate:g}" / "probe"
    before, after = folder / "before", folder / "after"
    (scores,) = score_units(before, after)
    log_p = scores.log_p[scores.changed] if scores.log_p is not None else np.array([])
    largest = np.argsort(-scores.score, kind="stable")[:50]
    line = {
        "rate": rate,
        "beta2": beta2,
        "changed": int(scores.changed.sum()),
        "p < 0.05": int(rejected(log_p, 0.05).sum()),
        "Bonferroni": int(rejected(log_p, 0.05, "bonferroni").sum()),
        "of the 50 largest, rare": int((run.counts.training[largest] < RARE).sum()),
        "of the 50 largest, in the prompt": int((run.counts.prompt[largest] > 0).sum()),
    }
    return line, (scores, before, after)


def main() -> None:
    """Run both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder; finished stages in it are reused")
    parser.add_argument("--rate", type=float, default=0.003, help="of the probe, for the second table")
    own, rest = parser.parse_known_args()
    counts, tunings = [], []
    for beta2 in BETAS:
        run = run_with(own.output / f"beta2-{beta2}", beta2, RATES, rest)
        run.tune_densely(EMBED_TUNING, "embedding")
        found = {rate: count_rows(run, rate, beta2) for rate in RATES}
        counts += [line for line, _ in found.values()]
        scores, before, after = found[own.rate][1]
        rows = run_with(own.output / f"beta2-{beta2}", BETAS[0], RATES, rest)
        for minimum in (0, 20):
            for k in (18, 50):
                allowed = np.flatnonzero(run.counts.training >= minimum)
                ticket = select_ticket([scores], before, after, selector=TopK(k), candidates=allowed)
                tested = rows.test(rows.tune_rows(f"{k} rows seen {minimum} times", ticket))
                line = {"beta2": beta2, "minimum count": minimum, "rows": k}
                bleu = {"BLEU whole": tested.scores.bleu_whole, "first line": tested.scores.bleu_first_line}
                tunings.append({**line, **bleu, "stops": tested.scores.stop_rate})
    write_json(own.output / "knobs.json", {"counts": counts, "tunings": tunings})
    for table in (counts, tunings):
        print("\n| " + " | ".join(table[0]) + " |\n|" + " --: |" * len(table[0]))
        for line in table:
            print(
                "| "
                + " | ".join(f"{v:.1f}" if isinstance(v, float) and v > 1 else f"{v:g}" for v in line.values())
                + " |"
            )


if __name__ == "__main__":
    main()
