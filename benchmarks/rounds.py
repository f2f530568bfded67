"""One round of iterative pruning beside the plain training that it contains, interleaved.

    python benchmarks/rounds.py
    python benchmarks/rounds.py --quick --output runs/benchmarks

A random Llama of 3.3 million weights and random tokens. A round holds half of the weights at zero (or at their
pretrained values) in every step, writes the trained model, scores every weight and selects. `plain training` is a stock
Trainer with the same arguments.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from interleaved import Method, interleave
from result import Judgement, Table, Target, machine, require_equal, write_result
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, Trainer, TrainingArguments

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.finders.rounds.levels import keep_largest, rank_units, trained_parameters
from ks_lottery.finders.rounds.runs import Kept, Run
from ks_lottery.ticket.ticket import Kind
from ks_lottery.training.arguments import probe_arguments
from ks_lottery.training.runs import TrainerRuns, trainer_runs
from ks_lottery.units.weights import Weights

PLAIN, WEIGHT, UPDATE = "plain training", "round of a weight ticket", "round of an update ticket"
LENGTH = 64


def model(quick: bool) -> Any:
    """A random Llama; the same every time."""
    torch.manual_seed(0)
    vocabulary, width, inner, layers, heads = (64, 32, 64, 2, 4) if quick else (4096, 192, 512, 4, 6)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def examples(count: int, vocabulary: int) -> list[dict[str, torch.Tensor]]:
    """Random sentences."""
    tokens = torch.randint(0, vocabulary, (count, LENGTH), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": one, "labels": one} for one in tokens]


def arguments(folder: Path, steps: int) -> TrainingArguments:
    """Of every training."""
    return probe_arguments(
        folder, max_steps=steps, learning_rate=1e-3, per_device_train_batch_size=8, save_strategy="no",
        logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip


def plain(data: Any, steps: int, quick: bool) -> None:
    """Train everything with a stock Trainer."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(model=model(quick), args=arguments(Path(folder), steps), train_dataset=data)
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def half(runs: TrainerRuns, kind: Kind) -> Run:
    """The training of every second weight."""
    groups = tuple(Weights().groups(runs.base.layout()))
    kept = Kept(groups, tuple(np.arange(0, group.num_units, 2) for group in groups), kind)
    return Run(None, kept, trained_parameters(groups, kind))


def check(runs: TrainerRuns) -> str:
    """Check that what is held stays where it belongs; returns what was found so."""
    base = dict(runs.load_model().named_parameters())
    for kind in ("weight", "update"):
        run = half(runs, kind)
        assert run.kept is not None
        trained = runs.train(run)
        for group in run.kept.groups:
            held = trained.rows(group.name).reshape(-1)[1::2]
            start = base[group.name].detach().reshape(-1)[1::2]
            require_equal(f"held weights of {group.name}", held, torch.zeros_like(held) if kind == "weight" else start)
    return "held weights end at zero, or bit for bit at their pretrained values"


def one_round(runs: TrainerRuns, kind: Kind) -> int:
    """Train with half of the weights held, score all, keep a quarter."""
    run = half(runs, kind)
    kept = run.kept
    assert kept is not None
    groups = kept.groups
    trained = runs.train(run)
    scores = rank_units(groups, kind, "", runs.base, trained)
    return keep_largest(scores, kept, kept.count // 2, "global").count


def main() -> None:
    """Measure, print the table and write `rounds.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny model, to see that it runs")
    parser.add_argument("--steps", type=int, default=150, help="optimizer steps of a training")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"), help="folder of the JSON file")
    options = parser.parse_args()
    steps = 3 if options.quick else options.steps
    torch.set_num_threads(1)
    data = examples(8 * steps, 64 if options.quick else 4096)

    def fresh() -> TrainerRuns:
        folder = Path(tempfile.mkdtemp(prefix="rounds-"))
        return trainer_runs(folder, lambda: model(options.quick), data, lambda place: arguments(place, steps))

    checked = check(fresh())
    timings = interleave(
        [
            Method(PLAIN, lambda: plain(data, steps, options.quick)),
            Method(WEIGHT, lambda runs: one_round(runs, "weight"), prepare=fresh),
            Method(UPDATE, lambda runs: one_round(runs, "update"), prepare=fresh),
        ],
        options.repeats,
    )
    judgements: list[Judgement] = [Target(WEIGHT, PLAIN, slower=1.03).judge(timings)]
    judgements.append(Target(UPDATE, PLAIN, slower=1.03).judge(timings))
    size = open_checkpoint(model(options.quick)).num_parameters()
    table = Table(
        f"{steps} steps of 8 x {LENGTH} tokens, a Llama of {size:,} weights, one thread.",
        "s", 1.0, timings, PLAIN, PLAIN, judgements, checked,
    )  # fmt: skip
    print(write_result(options.output, "rounds", "A round of iterative pruning", [table], machine()))


if __name__ == "__main__":
    main()
