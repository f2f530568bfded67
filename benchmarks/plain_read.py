"""Take in every byte of two checkpoints once, through the reader of `ks-lottery diff` and as many threads.

Usage: `python benchmarks/plain_read.py BEFORE AFTER`.
"""

import json
import sys
import time
from collections.abc import Iterator

import numpy as np

from ks_lottery.checkpoints.inventory import pair_tensors
from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.checkpoints.stream import PairReader, Piece, in_order, pieces_of
from ks_lottery.stats.jit import worker_count


def main(before: str, after: str) -> None:
    """Print as JSON how many bytes of tensors were read, and in how many seconds."""
    start = time.perf_counter()
    sides = open_checkpoint(before), open_checkpoint(after)
    pairs = pair_tensors(*sides).pairs

    def announced() -> Iterator[Piece]:
        for pair in pairs:
            for piece in pieces_of(pair):
                reader.announce(piece)
                yield piece

    def take_in(piece: Piece) -> int:
        for side in reader.read(piece):
            np.bitwise_or.reduce(side)
        return 2 * (piece.end - piece.begin)

    with PairReader(*sides) as reader:
        size = sum(in_order(take_in, announced(), worker_count(None)))
    print(json.dumps({"bytes": size, "seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main(*sys.argv[1:])
