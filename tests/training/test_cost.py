"""The meter sees the block and nothing before it."""

import time

import pytest
import torch

from ks_lottery.training.cost import measure


def test_peak_memory_is_that_of_the_block() -> None:
    large = torch.ones(2**26)
    del large
    with measure() as small:
        torch.ones(10)
    with measure() as cost:
        block = torch.ones(2**25)
    del block
    assert cost.peak_bytes - small.peak_bytes > 0.8 * 2**27
    with measure() as after:
        torch.ones(10)
    assert after.peak_bytes < cost.peak_bytes


def test_seconds_are_written_even_when_the_block_fails() -> None:
    def fail() -> None:
        with measure() as cost:
            costs.append(cost)
            time.sleep(0.01)
            raise RuntimeError("stop")

    costs: list = []
    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert costs[0].seconds >= 0.01
