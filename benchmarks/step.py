"""One fine-tuning step: ours beside full tuning, PEFT's methods and masked dense gradients, interleaved.

    python benchmarks/step.py
    python benchmarks/step.py --quick --output runs/benchmarks

A random Llama of 134 million weights, 4 x 128 tokens, AdamW; nothing is downloaded. `limit` is the forward pass and the
gradient of the activations, without any weight gradient or optimizer: what no method that changes the first layer can
go below. The peak memory of each method is that of a process of its own, which takes some steps of it alone.
"""

import argparse
import json
import resource
import subprocess
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from interleaved import Method, interleave
from result import Judgement, Table, Target, machine, require_equal, write_result
from torch import Tensor
from tunings import LORA, QUICK, TUNINGS, Size, Tuning

MEMORY_STEPS = 3
GROUPS = {
    "Token rows": (*("full", "embedding", "rows 18", "rows 1000", "TrainableTokens 18", "TrainableTokens 1000", LORA),),
    "Attention heads": ("heads 1 of 12", "heads 4 of 12", "heads 1 of 12, dense + mask", LORA),
    "Single weights": ("entries q,v", "SHiRA q,v", "entries all", "SHiRA all", "entries all, dense + mask"),
}
TARGETS = (
    Target("rows 18", "limit", slower=1.05),
    Target("rows 1000", "limit", slower=1.05),
    Target("rows 18", "TrainableTokens 18", slower=1.0),
    Target("rows 1000", "TrainableTokens 1000", slower=1.0),
    Target("rows 18", LORA, slower=0.85),
    Target("heads 1 of 12", "limit", slower=1.08),
    Target("heads 1 of 12", "heads 1 of 12, dense + mask", slower=0.85),
    Target("heads 1 of 12", LORA, slower=0.85),
    Target("entries all", "SHiRA all", slower=0.9),
)
SIZE_TARGETS = (
    ("heads 1 of 12", "peak memory", 1.06, "limit"),
    ("entries all", "peak memory", 0.9, "SHiRA all"),
    ("rows 18", "file", 0.1, LORA),
    ("heads 1 of 12", "file", 0.1, LORA),
    ("entries all", "file", 8 / 12, "SHiRA all"),
)


def check(tunings: dict[str, Tuning], tokens: Tensor) -> str:
    """Check that all methods begin at one loss, and that ours have the gradients of the dense ones.

    Returns:
        What was found equal.
    """
    losses = {name: tuning.backward(tokens) for name, tuning in tunings.items()}
    for name, loss in losses.items():
        require_equal(name, losses["limit"], loss, tolerance=1e-5)
    for ours, dense_one in (
        ("heads 1 of 12", "heads 1 of 12, dense + mask"),
        ("entries all", "entries all, dense + mask"),
    ):
        if ours in tunings and dense_one in tunings:
            sums = [_gradient_sums(tunings[name]) for name in (ours, dense_one)]
            require_equal(dense_one, sums[0], sums[1], tolerance=1e-3)
    for tuning in tunings.values():
        tuning.model.zero_grad()
    return "the loss of all methods, and the gradient norms of ours beside masked dense gradients"


def _gradient_sums(tuning: Tuning) -> list[float]:
    """Norms of the gradients of what a tuning trains, layer by layer."""
    found: dict[str, float] = {}
    for name, parameter in tuning.model.named_parameters():
        if parameter.grad is not None:
            layer = name.partition(".layers.")[2].partition(".")[0]
            found[layer] = found.get(layer, 0.0) + float(parameter.grad.double().square().sum())
    return [found[layer] ** 0.5 for layer in sorted(found)]


def compare(title: str, size: Size, names: Sequence[str], repeats: int, memory: dict[str, dict[str, float]]) -> Table:
    """Time one step of each method of a group in turn.

    Cost:
        All models at once, 0.5 GiB each at full size, and the state of their optimizers.
    """
    tunings, tokens = {name: TUNINGS[name](size.model()) for name in names}, size.tokens()
    checked = check(tunings, tokens)
    timings = interleave([Method(name, partial(tuning.step, tokens)) for name, tuning in tunings.items()], repeats)
    judgements = [target.judge(timings) for target in TARGETS if {target.method, target.against} <= set(names)]
    for name, what, most, against in SIZE_TARGETS:
        if {name, against} <= set(names) & set(memory):
            ratio = memory[name][what] / memory[against][what]
            judgements.append(Judgement(name, f"≤ {most:.3g} × the {what} of {against}", ratio, ratio <= most))
    columns = {
        f"{what}, MiB": {name: f"{memory[name][what]:.1f}" for name in names if name in memory}
        for what in ("peak memory", "optimizer", "file")
    }
    caption = (
        f"{title}. {size.batch} x {size.length} tokens, {size.layers} layers of width {size.width}, vocabulary "
        f"{size.vocabulary}, float32, AdamW, {torch.get_num_threads()} threads."
    )
    return Table(caption, "ms/step", 1e3, timings, "limit", "limit", judgements, checked, columns if memory else {})


def measure_memory(size: Size, name: str) -> dict[str, float]:
    """Peak memory of this process after some steps of one method, and the size of what it keeps, in MiB."""
    method = TUNINGS[name](size.model())
    for _ in range(MEMORY_STEPS):
        method.step(size.tokens())
    trained = sum(parameter.numel() for parameter in method.trained)
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "peak memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20,
        "optimizer": 8 * trained / 2**20,
        "file": method.file_bytes() / 2**20,
    }


def measure_apart(name: str, quick: bool) -> dict[str, float]:
    """`measure_memory` in a process of its own."""
    command = [sys.executable, __file__, "--memory-of", name, *(["--quick"] if quick else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Measure, print the table and write `step.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9, help="timed rounds")
    parser.add_argument("--methods", nargs="+", choices=TUNINGS, default=list(TUNINGS), help="limit is always there")
    parser.add_argument("--no-memory", action="store_true", help="time only")
    parser.add_argument("--quick", action="store_true", help="a tiny model and 2 rounds, to see that it runs")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"), help="folder of the JSON file")
    parser.add_argument("--memory-of", choices=TUNINGS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    size = QUICK if options.quick else Size()
    if options.memory_of:
        print(json.dumps(measure_memory(size, options.memory_of)))
        return
    described = machine()
    groups = {title: ["limit", *(n for n in names if n in options.methods)] for title, names in GROUPS.items()}
    groups = {title: names for title, names in groups.items() if len(names) > 1}
    names = dict.fromkeys(name for group in groups.values() for name in group)
    memory = {} if options.no_memory else {name: measure_apart(name, options.quick) for name in names}
    repeats = 2 if options.quick else options.repeats
    tables = [compare(title, size, names, repeats, memory) for title, names in groups.items()]
    print(write_result(options.output, "step", "One fine-tuning step", tables, described))


if __name__ == "__main__":
    main()
