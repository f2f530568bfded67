"""A fine-tuning step without gradient before the first ticket token, beside the limit of whole batches, interleaved.

    python benchmarks/prefix.py
    python benchmarks/prefix.py --quick --output runs/benchmarks

A random Llama of 134 million weights, 4 x 128 and 4 x 512 tokens, 18 rows of the input embedding, AdamW. The limit is
the forward pass and the gradient of all activations, without any weight gradient or optimizer. Before anything is timed
the gradients must equal those of the ordinary step. Writes `prefix.json`.
"""

import argparse
import dataclasses
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from interleaved import Method, interleave
from peft import get_peft_model
from result import ResultsDifferError, Table, Target, machine, write_result
from torch import Tensor
from tunings import QUICK, Size, Tuning, frozen, rows

from ks_lottery.adapter.prefix import skip_unused_gradients

ROWS, TOLERANCE, FASTER = 18, 2e-6, 1.3
PLACES = {"at the start": 0.0, "at 1/4": 0.25, "half way": 0.5, "at 3/4": 0.75, "nowhere": 1.0}
SMALL = dataclasses.replace(QUICK, length=128)
LIMIT, ORDINARY = "limit", "rows, ordinary"


def ours(place: str) -> str:
    """What the table calls our step."""
    return f"rows, first {place}"


def main() -> None:
    """Time, print the tables and write `prefix.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512], help="tokens per sequence")
    parser.add_argument("--quick", action="store_true", help="a tiny model, to see that it runs")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds")
    parser.add_argument("--cpu-time", action="store_true", help="CPU seconds of the process, for busy machines")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"), help="folder of the JSON file")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    described = machine()
    clock = time.process_time if options.cpu_time else time.perf_counter
    sizes = [SMALL] if options.quick else [dataclasses.replace(Size(), length=length) for length in options.lengths]
    tables = [compare(size, options.repeats, clock) for size in sizes]
    print(write_result(options.output, "prefix", "Gradients before the first ticket token", tables, described))


def compare(size: Size, repeats: int, clock: Callable[[], float] = time.perf_counter) -> Table:
    """A step with the first ticket token at each place, beside the limit and the ordinary step.

    Raises:
        ResultsDifferError: if a gradient differs from the ordinary one.
    """
    limit, trained = frozen(size.model()), make(size)
    limit.model.config.use_cache = False
    batches = {place: tokens(size, share) for place, share in PLACES.items()}
    worst = max(difference(trained, batch) for batch in batches.values())
    if worst > TOLERANCE:
        raise ResultsDifferError(f"Gradients differ from the ordinary ones by {worst:.1e}, more than {TOLERANCE:.0e}.")
    methods = [
        Method(LIMIT, lambda: limit.step(batches["half way"])),
        Method(ORDINARY, lambda: trained.step(batches["half way"])),
        *(Method(ours(place), lambda batch=batch: skipping(trained, batch)) for place, batch in batches.items()),
    ]
    timings = interleave(methods, repeats, clock=clock)
    return Table(
        f"{size.batch} x {size.length} tokens, width {size.width}, {size.layers} layers, {ROWS} rows; "
        f"{'CPU' if clock is time.process_time else 'wall-clock'} time.",
        "ms/step",
        1e3,
        timings,
        LIMIT,
        LIMIT,
        [Target(ours("half way"), LIMIT, faster=FASTER).judge(timings)],
        f"gradients equal the ordinary ones to {worst:.1e} of their norm",
    )


def make(size: Size) -> Tuning:
    """A model whose first rows of the input embedding train."""
    base = size.model()
    base.config.use_cache = False
    return Tuning(get_peft_model(base, rows(ROWS)(base)).train())


def tokens(size: Size, share: float) -> Tensor:
    """[batch, length] token ids; from a share of the length on, every eighth is one of the first 18."""
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randint(ROWS, size.vocabulary, (size.batch, size.length), generator=generator)
    drawn[:, round(share * size.length) :: 8] %= ROWS
    return drawn


def skipping(tuning: Tuning, batch: Tensor) -> None:
    """One step of ours."""
    with skip_unused_gradients(tuning.model):
        tuning.step(batch)


def difference(tuning: Tuning, batch: Tensor) -> float:
    """Norm of the difference of our gradient from the ordinary one, over the norm of that."""
    ordinary = gradient(tuning, batch)
    with skip_unused_gradients(tuning.model):
        own = gradient(tuning, batch)
    return float((own - ordinary).norm() / ordinary.norm().clamp(min=1e-30))


def gradient(tuning: Tuning, batch: Tensor) -> Tensor:
    """Gradient of the rows."""
    (parameter,) = tuning.trained
    parameter.grad = None
    loss: Any = tuning.model(input_ids=batch, labels=batch).loss
    loss.backward()
    assert parameter.grad is not None
    found, parameter.grad = parameter.grad, None
    return found


if __name__ == "__main__":
    main()
