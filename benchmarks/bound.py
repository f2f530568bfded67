"""Settling rows below a threshold by counting in bins, beside sorting every changed row.

    python benchmarks/bound.py
    python benchmarks/bound.py --probe runs/tatoeba-en-de/tuned/embed-tuning/0.003/probe
    python benchmarks/bound.py --quick

The moves are those of full fine-tuning of the embedded model, one pair of checkpoints per learning rate, or of a folder
with `before` and `after`. The model's own rows have 192 values: the matrices are cut into rows of n consecutive values,
so the moves are real and the rows are not. Two adverse pairs are made up. Before anything is timed, every row that is
not settled must have the statistic that sorting gives, and every settled one a statistic below the threshold. One
thread; times are those of the thread, so waiting for a processor does not count.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from interleaved import Method, Spread, interleave
from numpy.typing import NDArray
from result import require_equal
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recipes"))

from pocket.corpus import load_split

from ks_lottery.checkpoints.inventory import pair_tensors
from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.stats.floats import FloatBits, bits_of
from ks_lottery.stats.kolmogorov import two_sample_statistic
from ks_lottery.stats.pvalues import critical_statistic
from ks_lottery.stats.rows import RowSorter, for_each_block

POCKET = Path(__file__).resolve().parents[1] / "recipes" / "pocket" / "model"
RATES = (1e-5, 1e-4, 5e-4)
LENGTHS = (896, 4096)
LEVELS = {"alpha = 0.05": 0.05, "Bonferroni over 32,000": 0.05 / 32_000}
MOST_VALUES = 2**23
SETTLED = -1
Pair = tuple[torch.Tensor, torch.Tensor]


def main() -> None:
    """Print one row of a Markdown table per pair, row length and dtype."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probe", type=Path, nargs="*", default=[], help="folders that hold `before` and `after`")
    parser.add_argument("--steps", type=int, default=200, help="of each fine-tuning, 16 sentences each")
    parser.add_argument("--repeats", type=int, default=11, help="timed rounds")
    parser.add_argument("--quick", action="store_true", help="one rate and few steps, to see that it runs")
    options = parser.parse_args()
    rates, steps = (RATES[:1], 2) if options.quick else (RATES, options.steps)
    levels = " | ".join(f"{name}: reach it, settled, × faster" for name in LEVELS)
    print(f"| moves | n | dtype | rows | sorting, µs/row | {levels} |")
    print("| :-- | --: | :-- | --: | --: |" + " --: |" * len(LEVELS))
    for name, pair in pairs(rates, steps, options.probe):
        for n in LENGTHS:
            for dtype in (torch.float32, torch.bfloat16):
                rows = changed_rows(pair, n, dtype)
                print(f"| {name} | {n} | {rows[0].dtype} | {compare(*rows, options.repeats)} |", flush=True)


def pairs(rates: tuple[float, ...], steps: int, probes: list[Path]) -> Iterator[tuple[str, Pair]]:
    """Values before and after, one dimension each."""
    for rate in rates:
        yield f"full tuning, rate {rate:g}, {steps} steps", fine_tuned(rate, steps)
    for folder in probes:
        yield f"probe, rate {folder.parent.name}", saved(folder)
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(MOST_VALUES, generator=generator)
    yield "adverse: every value up by a standard deviation", (normal, normal + 1)
    noise = 0.01 * torch.randn(MOST_VALUES, generator=generator)
    yield "adverse: 7 distinct values", ((2 * normal).round().clamp(-3, 3), (2 * (normal + noise)).round().clamp(-3, 3))


def fine_tuned(rate: float, steps: int) -> Pair:
    """All matrices of the embedded model before and after AdamW on sentence pairs, end to end."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(POCKET, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(POCKET)
    texts = [f"English: {pair.source}\nGerman: {pair.target}\n" for pair in load_split("de", "train")]
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    before = torch.cat([matrix.detach().flatten() for matrix in matrices])
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for step in range(steps):
        first = 16 * step % (len(texts) - 16)
        batch = tokenizer(texts[first : first + 16], padding=True, return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        decay.step()
    return before, torch.cat([matrix.detach().flatten() for matrix in matrices])


def saved(folder: Path) -> Pair:
    """All matrices that two checkpoints have in common, end to end."""
    before, after = open_checkpoint(folder / "before"), open_checkpoint(folder / "after")
    names = [pair.name for pair in pair_tensors(before, after).pairs if len(pair.shape) == 2]
    sides = [torch.cat([side.rows(name).float().flatten() for name in names]) for side in (before, after)]
    return sides[0], sides[1]


def changed_rows(pair: Pair, n: int, dtype: torch.dtype) -> tuple[FloatBits, FloatBits]:
    """Rows of n consecutive values that differ: at most `MOST_VALUES` values of each side, evenly taken from all."""
    before, after = (bits_of(side[: len(side) // n * n].view(-1, n).to(dtype)) for side in pair)
    rows = np.flatnonzero((before.array != after.array).any(axis=1))
    rows = rows[:: max(1, -(-len(rows) * n // MOST_VALUES))]
    return before[rows], after[rows]


def compare(before: FloatBits, after: FloatBits, repeats: int) -> str:
    """Sorting all rows beside settling first, for every level: cells of a Markdown table."""
    units, n = before.shape
    exact = two_sample_statistic(before, after, threads=1)
    methods = [Method("sorting", lambda: two_sample_statistic(before, after, threads=1), units)]
    shares = []
    for name, alpha in LEVELS.items():
        h_crit = critical_statistic(n, alpha)
        found = settled_first(before, after, h_crit)
        below = found == SETTLED
        require_equal("sorting", found[~below], exact[~below])
        require_equal("sorting", exact[below] < h_crit, np.ones(below.sum()))
        shares.append(((exact >= h_crit).mean(), below.mean()))
        methods.append(Method(name, lambda h_crit=h_crit: settled_first(before, after, h_crit), units))
    timings = interleave(methods, repeats, clock=time.thread_time)
    cells = [f"{units}", f"{1e6 * timings['sorting'].spread().median:.1f}"]
    for (reached, settled), name in zip(shares, LEVELS, strict=True):
        cells.append(f"{reached:.1%}, {settled:.1%}, {shown(timings['sorting'].over(timings[name]))}")
    return " | ".join(cells)


def settled_first(before: FloatBits, after: FloatBits, h_crit: int) -> NDArray[np.int64]:
    """The statistic of every row that cannot be settled below `h_crit`, and `SETTLED` of the others; one thread."""
    statistic = np.zeros(len(before), dtype=np.int64)

    def work(sorter: RowSorter, block: slice) -> None:
        old, new = before.array[block], after.array[block]
        rows = sorter.changed(old, new, block.start)
        undecided = sorter.undecided(old, new, rows, h_crit)
        statistic[block][rows] = SETTLED
        statistic[block][undecided] = sorter.statistic(old, new, undecided, block.start)

    for_each_block(before, work, "rows", 0, threads=1)
    return statistic


def shown(ratio: Spread) -> str:
    """A ratio with its range."""
    return f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


if __name__ == "__main__":
    main()
