"""Tuned rows that act in one part of the text only: the instruction, the source sentence, or the translation."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from translation_ticket import UNRELATED

from ks_lottery.training.examples import encode_prompts, padding_id
from replication.bench import Bench
from replication.laboratory import Laboratory
from replication.measure import brief, keep_statistics, translate

SPANS = ("instruction", "source", "target")


@dataclass(frozen=True)
class Frame:
    """The instruction around the source sentence.

    Attributes:
        before: tokens of it before the sentence, the special ones included.
        after: tokens of it behind the sentence.
        pad: token that fills prompts up on the left.
    """

    before: int
    after: int
    pad: int

    def active(self, ids: Tensor, span: str) -> Tensor:
        """[batch, length] bool: where a span is, in left-padded prompts or in single tokens of a translation."""
        if ids.shape[1] == 1:
            return torch.full(ids.shape, span == "target", device=ids.device)
        padding = (ids == self.pad).long().cumprod(dim=1).sum(dim=1, keepdim=True)
        place = torch.arange(ids.shape[1], device=ids.device)
        source = (place >= padding + self.before) & (place < ids.shape[1] - self.after)
        if span == "source":
            return source
        return (place >= padding) & ~source if span == "instruction" else torch.zeros_like(source)


def frame_of(bench: Bench) -> Frame:
    """Measure the instruction on prompts of sentences that share no token."""
    prompts = encode_prompts(bench.tokenizer, [bench.prompt()(source) for source in UNRELATED])
    return Frame(_shared(prompts), _shared([ids[::-1] for ids in prompts]), padding_id(bench.tokenizer))


@contextlib.contextmanager
def acting_in(span: str, frame: Frame, model: Any, base: Tensor) -> Iterator[None]:
    """Inside the block, token rows are the tuned ones in one span and the pretrained ones elsewhere.

    Args:
        span: one of `SPANS`.
        frame: of the prompts.
        model: plain model with the tuned rows; it generates with a cache, one token at a time after the prompt.
        base: [vocabulary, width] pretrained rows.
    """

    def replace(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        (ids,) = inputs
        pretrained = nn.functional.embedding(ids, base)
        return torch.where(frame.active(ids, span).unsqueeze(-1), output, pretrained)

    handle = model.get_input_embeddings().register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def span_cell(lab: Laboratory, direction: str, seed: int, name: str, method: Any, span: str, folder: Path) -> Any:
    """Test a method whose rows act in one span only."""
    bench = lab.bench(direction)
    if method.ticket and lab.ticket(direction, seed, method.ticket) is None:
        return {"empty": f"There is no ticket {method.ticket}."}
    model = method.load(lab, direction, seed, lab.folder(direction, seed, name))
    model = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    base = bench.base().get_input_embeddings().weight.detach()
    with acting_in(span, frame_of(bench), model, base):
        scores = translate(bench, model, bench.test)
    keep_statistics(scores, folder)
    return brief(scores)


def _shared(rows: list[list[int]]) -> int:
    """How many first tokens all rows share."""
    count = 0
    for column in zip(*rows, strict=False):
        if len(set(column)) > 1:
            break
        count += 1
    return count
