"""Masks learnt over frozen weights, beside training those weights, interleaved.

    python benchmarks/masks.py
    python benchmarks/masks.py --quick --output runs/benchmarks

A random Llama in evaluation mode; nothing is downloaded. `training` is as many steps of a fused AdamW on the matrices
in the blocks, written out in plain PyTorch, with the same batches. A finder's time holds all of it: copies of the
weights, its steps, and the scores at the end. Times are those of the CPU, over all threads. Writes `masks.json`.
"""

import argparse
import inspect
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from interleaved import Method, interleave
from result import Table, Target, machine, require_equal, write_result
from torch import Tensor, nn
from tunings import Size

from ks_lottery.checkpoints.reader import ModelCheckpoint
from ks_lottery.finders.base import FINDERS, Finder
from ks_lottery.finders.masks.frozen import Frozen
from ks_lottery.ticket.ticket import Kind
from ks_lottery.units.granularity import granularity

FULL = Size(vocabulary=2000, width=384, layers=4, inner=1024, batch=8, length=128)
QUICK = Size(vocabulary=100, width=96, layers=2, inner=128, batch=2, length=16)
BATCHES = 4
MOST = 1.3
TRAINING = "training the matrices, AdamW"
METHODS: dict[str, tuple[str, str, Kind, dict[str, Any]]] = {
    "edge_popup, weights": ("edge_popup", "weights", "weight", {}),
    "edge_popup, weights of an update": ("edge_popup", "weights", "update", {}),
    "edge_popup, heads": ("edge_popup", "heads", "weight", {}),
    "edge_popup, neurons": ("edge_popup", "neurons", "weight", {}),
    "edge_popup, layers at .5": ("edge_popup", "layers", "weight", {"density": 0.5}),
    "gem_miner, weights": ("gem_miner", "weights", "weight", {}),
    "supermask, weights": ("supermask", "weights", "weight", {}),
    "partially_frozen, weights": ("partially_frozen", "weights", "weight", {}),
    "moments, weights": ("moments", "weights", "weight", {}),
    "concrete (loss), weights": ("concrete", "weights", "weight", {"objective": "loss"}),
    "concrete (kl), weights": ("concrete", "weights", "weight", {}),
    "concrete (kl), weights of an update": ("concrete", "weights", "update", {}),
    "concrete (kl), neurons": ("concrete", "neurons", "weight", {}),
}


@dataclass(frozen=True)
class Bench:
    """A frozen model with batches, and the same model after a move of everything.

    Attributes:
        size: of the model.
        steps: of every training and every mask.
    """

    size: Size
    steps: int
    model: nn.Module
    after: nn.Module
    batches: tuple[dict[str, Tensor], ...]

    @classmethod
    def of(cls, size: Size, steps: int) -> "Bench":
        """Random tokens; the labels are the tokens."""
        generator = torch.Generator().manual_seed(1)
        drawn = [torch.randint(size.vocabulary, (size.batch, size.length), generator=generator) for _ in range(BATCHES)]
        after = size.model()
        with torch.no_grad():
            for parameter in after.parameters():
                parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))
        batches = tuple({"input_ids": tokens, "labels": tokens} for tokens in drawn)
        return cls(size, steps, size.model().eval().requires_grad_(False), after, batches)

    def train(self) -> nn.Module:
        """Steps of AdamW on the matrices in the blocks of a fresh model."""
        model = self.size.model().eval().requires_grad_(False)
        trained = [
            parameter.requires_grad_(True)
            for name, parameter in model.named_parameters()
            if ".layers." in name and parameter.dim() > 1
        ]
        optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)
        for step in range(self.steps):
            model(**self.batches[step % BATCHES]).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return model

    def learn(self, method: Finder, units: str) -> None:
        """Learn a mask and score every unit."""
        groups = granularity(units).groups(ModelCheckpoint(self.model).layout())
        evidence = Frozen(self.model, self.batches, after=self.after if method.kind == "update" else None)
        list(method.score(groups, evidence))

    def method(self, name: str) -> tuple[Finder, str]:
        """A finder of the table for this many steps, and its units."""
        finder, units, kind, options = METHODS[name]
        entry = FINDERS.get(finder)
        wanted = {"kind": kind, "steps": self.steps, "density": 0.1, **options}
        known = inspect.signature(entry).parameters
        return entry(**{option: value for option, value in wanted.items() if option in known}), units


def check(bench: Bench) -> str:
    """Check that no finder moves a weight, and that optimizers hold no more than one number for each unit."""
    held: list[int] = []
    add = torch.optim.Optimizer.add_param_group

    def counted(self: Any, group: dict[str, Any]) -> None:
        add(self, group)
        held.extend(parameter.numel() for parameter in group["params"])

    before = {name: value.clone() for name, value in bench.model.state_dict().items()}
    torch.optim.Optimizer.add_param_group = counted  # type: ignore[method-assign]
    try:
        for name in METHODS:
            held.clear()
            method, units = bench.method(name)
            groups = granularity(units).groups(ModelCheckpoint(bench.model).layout())
            bench.learn(method, units)
            total = sum(group.num_units for group in groups)
            require_equal(f"the limit of {total} trained numbers of {name}", [min(sum(held), total)], [sum(held)])
    finally:
        torch.optim.Optimizer.add_param_group = add  # type: ignore[method-assign]
    same: Mapping[str, Tensor] = bench.model.state_dict()
    for name, value in before.items():
        require_equal(f"the frozen {name}", [int(torch.equal(value, same[name]))], [1])
    return "all weights are bit for bit as before, and optimizers hold one number for each unit at most"


def compare(size: Size, steps: int, repeats: int) -> Table:
    """Time all masks beside the training."""
    bench = Bench.of(size, steps)
    checked = check(Bench.of(QUICK, 2))
    runs = [Method(TRAINING, bench.train)]
    for name in METHODS:
        method, units = bench.method(name)
        runs.append(Method(name, lambda method=method, units=units: bench.learn(method, units)))
    timings = interleave(runs, repeats, clock=time.process_time)
    judgements = [Target(name, TRAINING, slower=MOST).judge(timings) for name in METHODS]
    caption = (
        f"Learning a mask at density .1. {steps} steps of {size.batch} x {size.length} tokens, {size.layers} layers of "
        f"width {size.width}, vocabulary {size.vocabulary}, float32, {torch.get_num_threads()} threads."
    )
    return Table(caption, "ms of CPU", 1e3, timings, TRAINING, TRAINING, judgements, checked)


def main() -> None:
    """Measure, print the table and write `masks.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds")
    parser.add_argument("--steps", type=int, default=16, help="optimizer steps of every training and mask")
    parser.add_argument("--quick", action="store_true", help="a tiny model and 2 rounds, to see that it runs")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"), help="folder of the JSON file")
    options = parser.parse_args()
    described = machine()
    size, steps, repeats = (QUICK, 2, 2) if options.quick else (FULL, options.steps, options.repeats)
    tables = [compare(size, steps, repeats)]
    print(write_result(options.output, "masks", "Masks over frozen weights", tables, described))


if __name__ == "__main__":
    main()
