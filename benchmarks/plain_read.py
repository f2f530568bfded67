"""Take in every byte of two checkpoints once, through the reader of `ks-lottery diff` and as many threads.

Usage: `python benchmarks/plain_read.py BEFORE AFTER`; with a number of rounds behind them, the diff of both is timed in
turn with the read, in this one process.
"""

import json
import sys
import time

import numpy as np
from interleaved import Method, interleave

from ks_lottery.checkpoints.diff import compare_checkpoints
from ks_lottery.checkpoints.inventory import pair_tensors
from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.checkpoints.stream import PairReader, Piece, in_order, pieces_of
from ks_lottery.stats.jit import worker_count


def take_in(before: str, after: str) -> int:
    """Read all tensors of both; returns how many bytes that were."""
    sides = open_checkpoint(before), open_checkpoint(after)

    def look(piece: Piece) -> int:
        for side in reader.read(piece):
            np.bitwise_or.reduce(side)
        return 2 * (piece.end - piece.begin)

    with PairReader(*sides) as reader:
        pieces = reader.announced(piece for pair in pair_tensors(*sides).pairs for piece in pieces_of(pair))
        return sum(in_order(look, pieces, worker_count(None)))


def main(before: str, after: str, rounds: str = "0") -> None:
    """Print as JSON how many bytes of tensors were read, and in how many seconds."""
    start = time.perf_counter()
    printed = {"bytes": take_in(before, after), "seconds": time.perf_counter() - start}
    if int(rounds):
        methods = [
            Method("diff", lambda: list(compare_checkpoints(before, after))),
            Method("read", lambda: take_in(before, after)),
        ]
        printed |= {name: timing.seconds for name, timing in interleave(methods, int(rounds)).items()}
    print(json.dumps(printed))


if __name__ == "__main__":
    main(*sys.argv[1:])
