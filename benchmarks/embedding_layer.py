"""Forward and backward of one embedding with trainable rows: ours beside PEFT's TrainableTokens, interleaved.

    python benchmarks/embedding_layer.py
    python benchmarks/embedding_layer.py --vocabulary 128256 --width 2048 --rows 18 1000

Both layers train the same rows and must give the same output and gradient before anything is timed. The frozen
embedding, with no trainable row, is the lower limit. Ratios within one run are what counts: times of shared machines
are not comparable between runs.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from peft import TrainableTokensConfig
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
from torch import Tensor, nn

from ks_lottery.adapter.layer import RowLayer


def main() -> None:
    """Print one row of a Markdown table per number of trainable rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", type=int, default=32000, help="rows of the matrix")
    parser.add_argument("--width", type=int, default=768, help="numbers per row")
    parser.add_argument("--tokens", type=int, nargs=2, default=(4, 128), help="batch size and length")
    parser.add_argument("--rows", type=int, nargs="+", default=(18, 1000), help="trainable rows, one table row each")
    parser.add_argument("--repeats", type=int, default=7, help="timed runs of each layer")
    options = parser.parse_args()
    print(f"{options.vocabulary} x {options.width} float32, {options.tokens[0]} x {options.tokens[1]} tokens, ", end="")
    print(f"{torch.get_num_threads()} threads; median of {options.repeats}, ratio with its range\n")
    print("| trainable rows | frozen, ms | ours, ms | TrainableTokens, ms | TrainableTokens / ours |")
    print("| --- | --- | --- | --- | --- |")
    for rows in options.rows:
        frozen, ours, theirs = compare(options.vocabulary, options.width, tuple(options.tokens), rows, options.repeats)
        ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
        medians = " | ".join(f"{1e3 * statistics.median(times):.2f}" for times in (frozen, ours, theirs))
        print(f"| {rows} | {medians} | {statistics.median(ratios):.0f} ({min(ratios):.0f} to {max(ratios):.0f}) |")


def compare(
    vocabulary: int, width: int, shape: tuple[int, int], rows: int, repeats: int
) -> tuple[list[float], list[float], list[float]]:
    """Seconds of `repeats` interleaved runs: frozen embedding, our layer, PEFT's layer."""
    torch.manual_seed(0)
    base = nn.Embedding(vocabulary, width).requires_grad_(False)
    index = torch.randperm(vocabulary)[:rows].sort().values
    tokens = torch.randint(vocabulary, shape)
    tokens[:, ::8] = index[torch.randint(rows, tokens[:, ::8].shape)]
    upstream = torch.randn(*shape, width)

    ours = RowLayer(base)
    ours.update_layer("default", rows, index.tolist())
    theirs = TrainableTokensLayer(base, "default")
    theirs.update_layer("default", config=TrainableTokensConfig(token_indices=index.tolist()))
    own, other = ours.ks_ticket_delta["default"], theirs.trainable_tokens_delta["default"]
    assert torch.equal(ours(tokens), theirs(tokens)), "the layers differ"
    gradients = [step(layer, tokens, upstream, delta) for layer, delta in ((ours, own), (theirs, other))]
    torch.testing.assert_close(*gradients)

    runs: list[Callable[[], object]] = [
        lambda: base(tokens),
        lambda: step(ours, tokens, upstream, own),
        lambda: step(theirs, tokens, upstream, other),
    ]
    times: tuple[list[float], list[float], list[float]] = ([], [], [])
    for _ in range(repeats):
        for run, seconds in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
    return times


def step(layer: nn.Module, tokens: Tensor, upstream: Tensor, delta: nn.Parameter) -> Tensor:
    """One forward and backward pass; returns the gradient of the trainable rows."""
    delta.grad = None
    layer(tokens).backward(upstream)
    assert delta.grad is not None
    return delta.grad


if __name__ == "__main__":
    main()
