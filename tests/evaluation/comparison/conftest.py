import gc
from collections.abc import Iterator

import pytest
import torch

from ks_lottery.finders.base import FINDERS
from tests.evaluation.comparison.planted import Broken, Dice, Oracle


@pytest.fixture(scope="package", autouse=True)
def finders_of_tests() -> Iterator[None]:
    """Finders that exist in tests of the harness alone."""
    for finder in (Oracle, Dice, Broken):
        FINDERS.register(finder.name)(finder)
    yield
    for finder in (Oracle, Dice, Broken):
        del FINDERS._entries[finder.name]


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Small models are fastest, and the same to the bit, on one thread; and a Trainer collects garbage at its end."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.freeze()
    yield
    gc.unfreeze()
    torch.set_num_threads(threads)
