"""Finders that look at a model and batches, beside the bare passes that they need, interleaved.

    python benchmarks/saliency.py
    python benchmarks/saliency.py --quick --output runs/benchmarks

A random Llama in evaluation mode; nothing is downloaded. A bare pass is written out in plain PyTorch and throws its
gradients away, so a finder's ratio is what its scores cost. Times are those of the CPU, over all
threads. Writes `saliency.json`.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from interleaved import Method, interleave
from result import Table, Target, machine, require_equal, write_result
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tunings import Size

from ks_lottery.checkpoints.reader import ModelCheckpoint
from ks_lottery.finders.base import Finder, UnitScores, finder
from ks_lottery.finders.saliency.batches import Batches
from ks_lottery.finders.saliency.flow import feed_forward_flow
from ks_lottery.finders.saliency.grasp import GraSP
from ks_lottery.finders.saliency.movement import Movement
from ks_lottery.finders.saliency.synflow import SynFlow
from ks_lottery.units.granularity import granularity
from ks_lottery.units.weights import Weights

FULL = Size(vocabulary=2000, width=384, layers=4, inner=1024, batch=8, length=128)
QUICK = Size(vocabulary=100, width=96, layers=2, inner=128, batch=2, length=16)
BATCHES = 2
MOST = 1.2
BLOCKS = "model.layers."
MLP = Weights(only=("*.mlp.*_proj.weight",))


@dataclass(frozen=True)
class Bench:
    """A model with batches, and what is run on them."""

    model: nn.Module
    batches: Sequence[dict[str, Tensor]]

    @classmethod
    def of(cls, size: Size) -> "Bench":
        """Random tokens; the labels are the tokens."""
        generator = torch.Generator().manual_seed(1)
        drawn = [torch.randint(size.vocabulary, (size.batch, size.length), generator=generator) for _ in range(BATCHES)]
        return cls(size.model().eval(), [{"input_ids": tokens, "labels": tokens} for tokens in drawn])

    def score(self, method: Finder, units: str | Weights) -> list[UnitScores]:
        """All scores of a finder."""
        groups = granularity(units).groups(ModelCheckpoint(self.model).layout())
        return list(method.score(groups, Batches(self.model, self.batches)))

    def trained(self) -> dict[str, nn.Parameter]:
        """The matrices in the blocks, which alone get gradients from here on."""
        found = {}
        for name, parameter in self.model.named_parameters():
            wanted = name.startswith(BLOCKS) and parameter.dim() > 1
            parameter.requires_grad_(wanted)
            parameter.grad = None
            if wanted:
                found[name] = parameter
        return found

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """The model's own."""
        loss: Tensor = self.model(**batch).loss
        return loss

    def first_order(self) -> dict[str, Tensor]:
        """Forward and backward passes with the gradients of the matrices in the blocks, summed over the batches."""
        trained = self.trained()
        for batch in self.batches:
            self.loss(batch).backward()
        return {name: parameter.grad for name, parameter in trained.items() if parameter.grad is not None}

    def activations(self) -> None:
        """Forward and backward passes with the gradients of the hidden states alone."""
        self.trained()
        self.model.requires_grad_(False)
        embedding = self.model.get_input_embeddings()  # type: ignore[operator]
        handle = embedding.register_forward_hook(lambda module, inputs, output: output.requires_grad_())
        for batch in self.batches:
            self.loss(batch).backward()
        handle.remove()

    def second_order(self) -> dict[str, Tensor]:
        """The gradient, then the gradient of its product with itself."""
        trained, found = list(self.trained().values()), []
        with sdpa_kernel(SDPBackend.MATH):
            for batch in self.batches:
                self.loss(batch).backward()
            first = [parameter.grad for parameter in trained]
            for parameter in trained:
                parameter.grad = None
            for batch in self.batches:
                gradients = torch.autograd.grad(self.loss(batch), trained, create_graph=True)
                torch.stack([(one * along).sum() for one, along in zip(gradients, first, strict=True)]).sum().backward()
            found = [parameter.grad for parameter in trained]
        return {name: value for name, value in zip(self.trained(), found, strict=True) if value is not None}

    def flows(self) -> None:
        """The flow through the feed-forward sublayers, in all rounds of SynFlow, without choosing anything."""
        flow = feed_forward_flow(self.model, MLP.groups(ModelCheckpoint(self.model).layout()))
        for _ in range(SynFlow().iterations):
            flow.scores()


Comparison = tuple[str, Callable[[Bench], object], dict[str, tuple[Finder, str | Weights]]]
COMPARISONS: dict[str, Comparison] = {
    "Gradients of weights": (
        "forward + backward",
        Bench.first_order,
        {
            "snip, weights": (finder("snip"), "weights"),
            "snip, heads": (finder("snip"), "heads"),
            "snip, layers": (finder("snip"), "layers"),
            "gradient, weights": (finder("gradient"), "weights"),
            "fisher, weights": (finder("fisher"), "weights"),
            "movement, weights": (finder("movement"), "weights"),
            "movement of updates, weights": (Movement("update", 1e-3), "weights"),
        },
    ),
    "Gradients of gates": (
        "forward + backward of activations",
        Bench.activations,
        {
            "head importance, heads": (finder("head_importance"), "heads"),
            "head importance, neurons": (finder("head_importance"), "neurons"),
        },
    ),
    "Second order": (
        "2 forward + 3 backward",
        Bench.second_order,
        {
            "grasp, weights": (GraSP(temperature=None), "weights"),
            "grasp with temperature, weights": (GraSP(), "weights"),
        },
    ),
    "No data": (
        "100 flows",
        Bench.flows,
        {"synflow, weights": (SynFlow(), MLP), "synflow, neurons": (SynFlow(), "neurons")},
    ),
}


def check(bench: Bench) -> str:
    """Check SNIP and GraSP against the bare passes; returns what was found equal."""
    for name, method, bare in (
        ("snip", finder("snip"), bench.first_order),
        ("grasp", GraSP(temperature=None, absolute=True), bench.second_order),
    ):
        gradients = bare()
        factor = 1 / BATCHES if name == "snip" else 1.0
        expected = [
            float((factor * gradients[group] * bench.model.get_parameter(group)).abs().sum().detach())
            for group in gradients
        ]
        found = {entry.group.name: float(entry.score.sum()) for entry in bench.score(method, "weights")}
        require_equal(f"bare {name}", [found[group] for group in gradients], expected, tolerance=1e-3)
    return "the scores of snip and grasp beside those of the bare passes"


def compare(size: Size, title: str, repeats: int) -> Table:
    """Time the finders of one comparison beside their bare passes."""
    limit, bare, methods = COMPARISONS[title]
    bench = Bench.of(size)
    checked = check(bench)
    runs = [Method(limit, lambda: bare(bench))]
    runs += [
        Method(name, lambda one=one, units=units: bench.score(one, units)) for name, (one, units) in methods.items()
    ]
    timings = interleave(runs, repeats, clock=time.process_time)
    judgements = [Target(name, limit, slower=MOST).judge(timings) for name in methods]
    caption = (
        f"{title}. {BATCHES} batches of {size.batch} x {size.length} tokens, {size.layers} layers of width "
        f"{size.width}, vocabulary {size.vocabulary}, float32, {torch.get_num_threads()} threads."
    )
    return Table(caption, "ms of CPU", 1e3, timings, limit, limit, judgements, checked)


def main() -> None:
    """Measure, print the tables and write `saliency.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds")
    parser.add_argument("--tables", nargs="+", choices=COMPARISONS, default=list(COMPARISONS), help="which comparisons")
    parser.add_argument("--quick", action="store_true", help="a tiny model and 2 rounds, to see that it runs")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"), help="folder of the JSON file")
    options = parser.parse_args()
    described = machine()
    size, repeats = (QUICK, 2) if options.quick else (FULL, options.repeats)
    tables = [compare(size, title, repeats) for title in options.tables]
    print(write_result(options.output, "saliency", "Scores from gradients", tables, described))


if __name__ == "__main__":
    main()
