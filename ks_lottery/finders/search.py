"""The search: stream the groups, score them, select, and write down where the ticket comes from."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from ks_lottery._version import __version__
from ks_lottery.checkpoints.reader import Checkpoint, open_checkpoint
from ks_lottery.errors import OptionError, TicketError
from ks_lottery.finders.base import Finder, Shift, UnitScores
from ks_lottery.finders.base import finder as resolve_finder
from ks_lottery.finders.select import Alpha, Selector, describe
from ks_lottery.ticket.identity import identify
from ks_lottery.ticket.ticket import Provenance, Selection, Ticket
from ks_lottery.units.granularity import Granularity, granularity
from ks_lottery.units.slab import parameters_of

Source = str | os.PathLike[str] | torch.nn.Module | Checkpoint
Candidates = Sequence[int] | np.ndarray | Mapping[str, Sequence[int] | np.ndarray]


def find_ticket(
    before: Source,
    after: Source,
    units: str | Granularity = "token_rows",
    finder: str | Finder = "ks",
    selector: Selector | None = None,
    candidates: Candidates | None = None,
) -> Ticket:
    """Find the units that shifted between two checkpoints.

    Args:
        before: the base model: live model, folder, Hub id or checkpoint.
        after: the same model after the probe.
        units: granularity, by name or as an object with options.
        finder: method, by name or as an object with options.
        selector: how to cut; `Alpha(0.05)`, the paper's rule, if None.
        candidates: unit numbers that may be selected, for every group or by group name; all that changed if None.

    Returns:
        the ticket; `ticket.save(folder)` keeps it.

    Raises:
        CheckpointError: if before and after cannot be read or compared.
        UnitError: if the model lacks the units, or a value is NaN or infinite.
        TicketError: if nothing, or everything, is selected.
        OptionError, UnknownNameError: if an option is wrong.

    Cost:
        Reads each tensor that holds units once, in pieces of 16 MiB.
    """
    before, after = open_checkpoint(before), open_checkpoint(after)
    scores = score_units(before, after, units, finder)
    return select_ticket(scores, before, after, units, finder, selector, candidates)


def score_units(
    before: Source, after: Source, units: str | Granularity = "token_rows", finder: str | Finder = "ks"
) -> list[UnitScores]:
    """Score every unit, selected or not; arguments and errors as `find_ticket`."""
    before, after = open_checkpoint(before), open_checkpoint(after)
    method = resolve_finder(finder)
    return list(method.score(granularity(units).groups(before.layout()), Shift(before, after)))


def select_ticket(
    scores: Sequence[UnitScores],
    before: Source,
    after: Source,
    units: str | Granularity = "token_rows",
    finder: str | Finder = "ks",
    selector: Selector | None = None,
    candidates: Candidates | None = None,
) -> Ticket:
    """Cut scores that `score_units` made with the same arguments; as `find_ticket`."""
    before, after = open_checkpoint(before), open_checkpoint(after)
    method, chooser = resolve_finder(finder), selector or Alpha()
    allowed = [entry.changed & _candidate_mask(entry, candidates) for entry in scores]
    chosen = chooser.select(scores, allowed)
    if all(len(indices) == entry.group.num_units for entry, indices in zip(scores, chosen, strict=True)):
        raise TicketError(
            f"All {sum(len(indices) for indices in chosen)} units are selected, so the ticket is the whole of "
            f"{', '.join(entry.group.name for entry in scores)}. Lower alpha, use TopK(k), or probe with a lower "
            "learning rate."
        )
    selections = {
        entry.group.name: Selection(
            entry.group, indices, {name: column[indices] for name, column in entry.columns.items()}
        )
        for entry, indices in zip(scores, chosen, strict=True)
    }
    details: dict[str, Any] = {
        "finder_options": asdict(method),  # type: ignore[call-overload]
        "selector": describe(chooser),
        "units": asdict(granularity(units)),  # type: ignore[call-overload]
        "before": before.name,
        "after": after.name,
        "tested": int(sum(mask.sum() for mask in allowed)),
        "restricted_to_candidates": candidates is not None,
        "ks_lottery": __version__,
    }
    base = identify(before, parameters_of([entry.group for entry in scores]))
    return Ticket(method.kind, granularity(units).name, selections, base, Provenance(method.name, details))


def _candidate_mask(scores: UnitScores, candidates: Candidates | None) -> np.ndarray:
    """[num_units] bool; True where a unit may be selected."""
    group = scores.group
    if candidates is None:
        return np.ones(group.num_units, dtype=bool)
    listed = candidates.get(group.name, ()) if isinstance(candidates, Mapping) else candidates
    indices = np.asarray(listed, dtype=np.int64)
    if len(indices) and not 0 <= indices.min() <= indices.max() < group.num_units:
        raise OptionError(
            f"candidates name units {indices.min()} to {indices.max()}, but group {group.name!r} has units 0 to "
            f"{group.num_units - 1}."
        )
    mask = np.zeros(group.num_units, dtype=bool)
    mask[indices] = True
    return mask
