"""From a base model to a translation ticket, a PEFT adapter that trains only the ticket, and an honest report.

    accelerate launch recipes/translate.py                        # embedded model and corpus, minutes on two cores
    accelerate launch recipes/translate.py --quick                # the same, smaller
    accelerate launch recipes/translate.py --tatoeba DIR --target_language de
    accelerate launch recipes/translate.py recipes/configs/paper.yaml --model_name_or_path huggyllama/llama-7b \
        --dataset_name Helsinki-NLP/opus-100 --dataset_config_name ca-en --target_language ca

Each stage leaves a folder in `--output_dir` and returns at once when that is finished, so a killed run continues.
Two CPU processes: ACCELERATE_USE_CPU=true OMP_NUM_THREADS=1 accelerate launch --multi_gpu --num_processes 2 ...
"""

import shlex
import sys
from dataclasses import dataclass, field

from options import parse_options
from translation_data import DataArguments
from translation_options import EvaluationArguments, ModelArguments, TuningArguments
from translation_run import TranslationRun
from translation_ticket import TicketArguments

from ks_lottery.errors import LotteryError, OptionError
from ks_lottery.report.results import EMBED_TUNING, FULL_TUNING, PARTIAL_TUNING


@dataclass
class RunArguments:
    """Where the run goes."""

    output_dir: str = field(default="runs/translate", metadata={"help": "Folder of the run; a rerun continues there."})
    push_to_hub: bool = field(default=False, metadata={"help": "Push adapter, ticket, scores and model card."})
    hub_model_id: str | None = field(default=None, metadata={"help": "Repository to push to: user/name."})
    private: bool = field(default=False, metadata={"help": "Make a new repository private."})

    def __post_init__(self) -> None:
        if self.push_to_hub and not self.hub_model_id:
            raise OptionError("--push_to_hub needs --hub_model_id user/name.")


def main() -> None:
    """Embed tuning, ticket, partial tuning, controls, report: KS-Lottery in reading order."""
    kinds = (ModelArguments, DataArguments, TicketArguments, TuningArguments, EvaluationArguments, RunArguments)
    *options, place = parse_options(kinds, sys.argv[1:], default="pocket.yaml", quick="quick.yaml")
    run = TranslationRun(place.output_dir, *options)

    base = run.base()
    embed = run.tune_densely(EMBED_TUNING, scope="embedding")
    ticket = run.find(embed)
    drawn = run.controls(ticket)
    partial = run.tune_rows(PARTIAL_TUNING, ticket)
    transfer = run.transfer(ticket, embed)
    controls = [run.tune_rows(name, control) for name, control in drawn.items()]
    full = run.tune_densely(FULL_TUNING, scope="full")
    lora = run.tune_lora()
    tested = [run.test(method) for method in (base, embed, full, partial, transfer, *controls, lora)]
    report = run.report(
        tested, ticket, command=shlex.join(["accelerate", "launch", "recipes/translate.py", *sys.argv[1:]])
    )
    if place.push_to_hub:
        run.push(partial, ticket, report, place.hub_model_id, place.private)
    run.finish()


if __name__ == "__main__":
    try:
        main()
    except LotteryError as error:
        sys.exit(f"{type(error).__name__}: {error}")
