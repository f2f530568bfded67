"""Every finder of repeated training over every granularity, on a language model and a stock Trainer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ks_lottery.errors import TicketError, UnitError
from ks_lottery.finders.base import FINDERS
from ks_lottery.finders.rounds.runs import Runs
from ks_lottery.finders.search import find_ticket, score_units
from ks_lottery.finders.select import Density
from ks_lottery.training.arguments import probe_arguments
from ks_lottery.training.examples import ResponseCollator
from ks_lottery.training.runs import trainer_runs
from ks_lottery.units.granularity import GRANULARITIES, granularity
from tests.tiny_models import tiny_llama
from tests.training.tiny_task import tiny_examples, tiny_tokenizer

EXAMPLES, TOKENIZER = tiny_examples(), tiny_tokenizer()
OPTIONS: dict[str, dict[str, Any]] = {
    "imp": {"density": 0.5, "rounds": 2}, "lrr": {"density": 0.5, "rounds": 2},
    "bert_rounds": {"rounds": 2, "drop": 0.25}, "lt_sft": {"density": 0.5, "rounds": 2},
    "colt": {"density": 0.5, "drop": 0.3}, "early_bird": {"every": 1, "window": 2},
    "super_tickets": {"every": 1, "drop": 0.25},
}  # fmt: skip
GATED = ("heads", "neurons", "supernet")
PAIRS = [
    (name, units)
    for name, entry in FINDERS.items()
    if entry.needs is Runs
    for units in GRANULARITIES.names()
    if name not in ("early_bird", "super_tickets") or units in GATED
]


def runs_in(folder: Path) -> Runs:
    def arguments(place: Path) -> Any:
        return probe_arguments(
            place, max_steps=3, learning_rate=1e-2, per_device_train_batch_size=4, use_cpu=True, save_strategy="no",
            logging_strategy="no", disable_tqdm=True,
        )  # fmt: skip

    return trainer_runs(
        folder, lambda: tiny_llama(vocabulary=len(TOKENIZER)), EXAMPLES, arguments, ResponseCollator(0), parts=2
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """One folder for all: dense runs are made once."""
    return runs_in(tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize(("name", "units"), PAIRS)
def test_it_finds_a_ticket_of_exactly_half(name: str, units: str, runs: Runs) -> None:
    two_layers = name == "lt_sft" and units == "layers"  # of which half is one, too few for two rounds
    method = FINDERS.get(name)(**OPTIONS[name] | ({"rounds": 1} if two_layers else {}))
    groups = granularity(units).groups(runs.base.layout())
    total = sum(group.num_units for group in groups)
    scores = score_units(runs.base, None, units, method, evidence=runs)
    assert [entry.group for entry in scores] == list(groups)
    assert all(np.isfinite(entry.score).all() for entry in scores)
    changed = sum(int(entry.changed.sum()) for entry in scores)
    if changed < total // 2:  # token rows that no text uses are no candidates of an update ticket
        with pytest.raises(TicketError, match=f"but only {changed} of {total} can be selected"):
            find_ticket(runs.base, None, units, method, Density(0.5), evidence=runs)
        return
    ticket = find_ticket(runs.base, None, units, method, Density(0.5), evidence=runs)
    assert ticket.kind == method.kind
    assert len(ticket) == round(0.5 * total)
    assert ticket.provenance.details["steps"] == 3


@pytest.mark.parametrize("kind", ["weight", "update"])
@pytest.mark.parametrize("units", ["heads", "neurons", "token_rows", "layers", "matrix_rows"])
def test_dropped_units_are_held_whole(kind: str, units: str, runs: Runs) -> None:
    method = FINDERS.get("imp")(kind=kind, density=0.5, rounds=2)
    groups = granularity(units).groups(runs.base.layout())
    first, second = method.levels(groups, runs)
    for group, kept in zip(groups, first.kept.indices, strict=True):
        dropped = np.setdiff1d(np.arange(group.num_units), kept)
        for slab in group.slabs:
            held = slab.take(second.trained.rows(slab.parameter), dropped)
            start = slab.take(runs.base.rows(slab.parameter), dropped)
            assert torch.equal(held, start if kind == "update" else torch.zeros_like(start))


def test_early_bird_needs_gates(runs: Runs) -> None:
    with pytest.raises(UnitError, match="Use units='heads' or units='neurons'"):
        find_ticket(
            runs.base, None, "layers", FINDERS.get("early_bird")(every=1, window=2), Density(0.5), evidence=runs
        )
