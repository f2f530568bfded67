"""Batches through a model: longest first, shared over processes, results in the order of the items."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, parse_flag_from_env, tqdm

from ks_lottery.errors import OptionError

Item = TypeVar("Item")
Result = TypeVar("Result")

_SECONDS_BEFORE_PROGRESS = 2.0


@contextlib.contextmanager
def inference_mode(model: torch.nn.Module) -> Iterator[None]:
    """Switch gradients and dropout off; every module gets its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def run_batches(
    items: Sequence[Item],
    lengths: Sequence[int],
    batch_size: int,
    run: Callable[[list[Item]], Sequence[Result]],
    description: str,
    progress: bool = True,
) -> list[Result]:
    """Call `run` on batches of items of similar length.

    Where several processes run (torchrun, accelerate launch), each takes a part of the batches and all must call this;
    every process gets all results. A batch holds the same items however many processes there are, so the results do
    not depend on their number.

    Args:
        items: what to work on.
        lengths: one per item; the longest are taken first, so that memory runs out at once or never.
        batch_size: items per batch.
        run: batch to one result per item; results travel between processes by pickle.
        description: of the progress bar, which appears after 2 seconds.
        progress: whether it does.

    Raises:
        OptionError: if `batch_size` is below 1.
    """
    if batch_size < 1:
        raise OptionError(f"batch_size={batch_size}: must be at least 1.")
    order = sorted(range(len(items)), key=lambda index: -lengths[index])
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())
    done: list[tuple[int, Result]] = []
    with state.split_between_processes(batches) as mine:
        for batch in tqdm(mine, desc=description, disable=not progress, delay=_SECONDS_BEFORE_PROGRESS, leave=False):
            done += zip(batch, run([items[index] for index in batch]), strict=True)
    results = dict(gather_object(done))
    return [results[index] for index in range(len(items))]
