"""Forward and backward of one embedding with trainable rows: ours beside PEFT's TrainableTokens, interleaved.

    python benchmarks/embedding_layer.py
    python benchmarks/embedding_layer.py --quick --output runs/benchmarks

Both layers train the same rows and must give the same output and gradient before anything is timed. The frozen
embedding, with no trainable row, is the limit. What a layer takes beyond that one is the growth of a process of its
own, which makes some steps with it alone. Writes `embedding_layer.json`.
"""

import argparse
import json
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from interleaved import Method, interleave
from peft import TrainableTokensConfig
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
from result import Judgement, Table, Target, machine, require_equal, write_result
from torch import Tensor, nn

from ks_lottery.adapter.layer import RowLayer

LIMIT, OURS, PEER = "frozen embedding", "ours", "TrainableTokens"
MOST_MEMORY = 16  # MiB
TOKENS = (4, 128)


@dataclass(frozen=True)
class Size:
    """One embedding.

    Attributes:
        vocabulary: rows of the matrix.
        width: values per row.
        rows: how many are trained.
        faster: how many times faster than the peer ours has to be.
    """

    vocabulary: int
    width: int
    rows: int
    faster: float


SIZES = (Size(32_000, 768, 18, 100), Size(32_000, 768, 1000, 100), Size(128_256, 2048, 18, 1000))
QUICK = Size(500, 32, 18, 0.01)


@dataclass(frozen=True)
class Layers:
    """A frozen embedding, and two layers around it that train the same rows."""

    base: nn.Embedding
    made: dict[str, tuple[nn.Module, nn.Parameter]]
    tokens: Tensor
    upstream: Tensor

    def step(self, name: str) -> Tensor:
        """One forward and backward pass; returns the gradient of the trainable rows."""
        layer, delta = self.made[name]
        delta.grad = None
        layer(self.tokens).backward(self.upstream)
        assert delta.grad is not None
        return delta.grad


def make(size: Size, names: tuple[str, ...] = (OURS, PEER)) -> Layers:
    """Layers with random weights and tokens, of which every eighth hits a trainable row; always the same ones."""
    torch.manual_seed(0)
    base = nn.Embedding(size.vocabulary, size.width).requires_grad_(False)
    index = torch.randperm(size.vocabulary)[: size.rows].sort().values
    tokens = torch.randint(size.vocabulary, TOKENS)
    tokens[:, ::8] = index[torch.randint(size.rows, tokens[:, ::8].shape)]
    made: dict[str, tuple[nn.Module, nn.Parameter]] = {}
    if OURS in names:
        ours = RowLayer(base)
        ours.update_layer("default", size.rows, index.tolist())
        made[OURS] = ours, ours.ks_ticket_delta["default"]
    if PEER in names:
        theirs = TrainableTokensLayer(base, "default")
        theirs.update_layer("default", config=TrainableTokensConfig(token_indices=index.tolist()))
        made[PEER] = theirs, theirs.trainable_tokens_delta["default"]
    return Layers(base, made, tokens, torch.randn(*TOKENS, size.width))


def compare(size: Size, repeats: int, memory: dict[str, float]) -> Table:
    """Time both layers and the frozen embedding.

    Args:
        size: of the embedding.
        repeats: timed rounds.
        memory: MiB beyond the frozen embedding, by layer.
    """
    layers = make(size)
    outputs = [layers.made[name][0](layers.tokens).detach().numpy() for name in (OURS, PEER)]
    require_equal(PEER, *outputs)
    require_equal(PEER, *(layers.step(name).numpy() for name in (OURS, PEER)), tolerance=1e-5)
    methods = [Method(LIMIT, lambda: layers.base(layers.tokens))]
    methods += [Method(name, lambda name=name: layers.step(name)) for name in (OURS, PEER)]
    timings = interleave(methods, repeats)
    judgements = [Target(OURS, PEER, faster=size.faster).judge(timings)]
    if memory:
        judgements.append(Judgement(OURS, f"≤ {MOST_MEMORY} MiB", memory[OURS], memory[OURS] <= MOST_MEMORY))
    return Table(
        f"{size.rows} rows of {size.vocabulary:,} x {size.width:,} float32, {TOKENS[0]} x {TOKENS[1]} tokens, "
        f"{torch.get_num_threads()} threads.",
        "ms",
        1e3,
        timings,
        PEER,
        LIMIT,
        judgements,
        "outputs are equal, gradients to 1e-5",
        {"beyond the frozen one, MiB": {name: f"{figure:.1f}" for name, figure in memory.items()}} if memory else {},
    )


def growth(size: Size, name: str) -> float:
    """MiB by which the peak of this process grows in some steps of one layer, beyond a pass of the frozen one."""
    layers = make(size, (name,))
    layers.base(layers.tokens)
    before = peak()
    for _ in range(3):
        layers.step(name)
    return peak() - before


def peak() -> float:
    """Largest resident set of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**20


def growth_apart(size: Size, name: str) -> float:
    """`growth` in a process of its own."""
    command = [sys.executable, __file__, "--growth-of", name, "--size", json.dumps(asdict(size))]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def main() -> None:
    """Measure, print the tables and write `embedding_layer.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny matrix, to see that it runs")
    parser.add_argument("--repeats", type=int, default=7, help="timed rounds")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"), help="folder of the JSON file")
    parser.add_argument("--growth-of", choices=(OURS, PEER), help=argparse.SUPPRESS)
    parser.add_argument("--size", type=json.loads, help=argparse.SUPPRESS)
    options: Any = parser.parse_args()
    if options.growth_of:
        print(growth(Size(**options.size), options.growth_of))
        return
    described = machine()
    sizes = (QUICK,) if options.quick else SIZES
    # First, since the peak of a child is never below that of its parent.
    memory = [{name: growth_apart(size, name) for name in (OURS, PEER)} for size in sizes]
    tables = [compare(size, options.repeats, grown) for size, grown in zip(sizes, memory, strict=True)]
    title = "One embedding with trainable rows"
    print(write_result(options.output, "embedding_layer", title, tables, described))


if __name__ == "__main__":
    main()
