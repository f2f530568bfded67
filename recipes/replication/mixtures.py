"""Tickets beyond the paper's: rows that replicate, rows of the prompt with sentence ends, rows with norms."""

from collections import Counter
from typing import Any

import numpy as np

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.ticket.controls import these_rows
from ks_lottery.ticket.identity import identify
from ks_lottery.ticket.ticket import Provenance, Selection, Ticket
from ks_lottery.training.examples import IGNORED_LABEL
from ks_lottery.units.slab import parameters_of
from ks_lottery.units.weights import Weights
from replication.laboratory import Laboratory
from replication.shift import RowShift
from replication.tickets import TicketPlan, control

_NORMS = ("*norm*",)
_SHARE_OF_ENDS = 0.99


def replicated(lab: Laboratory, direction: str, seed: int, like: Ticket) -> Ticket:
    """The rows whose D is large in the probe of every seed: those with the best of the worst ranks."""
    del seed
    ranks = []
    for other in lab.setting.seeds:
        shift = RowShift.load(lab.folder(direction, other, "embed"))
        scores = np.where(shift.changed, shift.d, -1.0)
        ranks.append(np.argsort(np.argsort(-scores, kind="stable"), kind="stable"))
    worst = np.max(ranks, axis=0)
    return these_rows(like, np.argsort(worst, kind="stable")[: len(like)], "replicated")


def replicates() -> TicketPlan:
    """Rows that replicate over all seeds of a direction."""
    plan = control("ks", replicated)
    return TicketPlan(plan.find, tickets=("ks",), others=lambda lab, direction, _: [
        (direction, seed, "ks") for seed in lab.setting.seeds
    ])  # fmt: skip


def prompt_and_ends(lab: Laboratory, direction: str, seed: int, like: Ticket) -> Ticket:
    """All rows of the prompt, and the tokens before EOS that make up 99 in 100 responses' ends."""
    bench = lab.bench(direction)
    ends: Counter[int] = Counter()
    examples = bench.examples(seed).examples
    for example in examples:
        ends[[token for token in example["labels"] if token != IGNORED_LABEL][-2]] += 1
    kept, seen = [], 0
    for token, count in ends.most_common():
        if seen >= _SHARE_OF_ENDS * len(examples):
            break
        kept.append(token)
        seen += count
    rows = np.union1d(np.flatnonzero(bench.counts(seed).prompt), kept)
    return these_rows(like, rows, "prompt_and_ends")


def norms(lab: Laboratory, direction: str, seed: int, like: Ticket) -> Ticket:
    """The weights of all norms."""
    del seed
    return _with_norms(lab, direction, like, rows=False)


def with_norms(lab: Laboratory, direction: str, seed: int, like: Ticket) -> Ticket:
    """The rows of a ticket, and the weights of all norms."""
    del seed
    return _with_norms(lab, direction, like, rows=True)


def _with_norms(lab: Laboratory, direction: str, like: Ticket, rows: bool) -> Ticket:
    checkpoint = open_checkpoint(lab.bench(direction).pretrained.name)
    groups = Weights(_NORMS).groups(checkpoint.layout())
    selections: dict[str, Any] = dict(like.selections) if rows else {}
    selections |= {group.name: Selection(group, np.arange(group.num_units)) for group in groups}
    parameters = parameters_of([selection.group for selection in selections.values()])
    name = f"{like.granularity}+norms" if rows else "norms"
    return Ticket("update", name, selections, identify(checkpoint, parameters), Provenance(name, {}))
