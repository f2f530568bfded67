"""The search: stream the groups, score them, select, and write down where the ticket comes from."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from ks_lottery._version import __version__
from ks_lottery.checkpoints.reader import Checkpoint, open_checkpoint
from ks_lottery.errors import OptionError, TicketError
from ks_lottery.finders.base import Evidence, Finder, Shift, UnitScores, require_evidence
from ks_lottery.finders.base import finder as resolve_finder
from ks_lottery.finders.ranks import Ranks, ranks_for
from ks_lottery.finders.select import Alpha, Density, Selector, TopK, describe
from ks_lottery.finders.streaming import largest_streamed
from ks_lottery.ticket.ticket import Provenance, Selection, Ticket
from ks_lottery.units.granularity import Granularity, granularity
from ks_lottery.units.slab import UnitGroup, parameters_of

if TYPE_CHECKING:
    import torch

Source = Union[str, os.PathLike[str], "torch.nn.Module", Checkpoint]
_HELD_UNITS = 2**25  # scores of more units than this are not kept but computed again

Candidates = Sequence[int] | np.ndarray | Mapping[str, Sequence[int] | np.ndarray]


def find_ticket(
    before: Source,
    after: Source | None = None,
    units: str | Granularity = "token_rows",
    finder: str | Finder = "ks",
    selector: Selector | None = None,
    candidates: Candidates | None = None,
    distributed: bool = False,
    evidence: Evidence | None = None,
) -> Ticket:
    """Find the units that matter for a task: by their shift between two checkpoints, or by other evidence.

        find_ticket("base", "tuned", finder="ks")
        find_ticket(model, units="heads", finder="snip", selector=TopK(8), evidence=Batches(model, batches))
        find_ticket(model, units="weights", finder="random", selector=Density(0.05))

    Args:
        before: the base model: live model, folder, Hub id or checkpoint.
        after: the same model after the probe; None for finders that look at something else.
        units: granularity, by name or as an object with options.
        finder: method, by name or as an object with options.
        selector: how to cut; `Alpha(0.05)`, the paper's rule, if None.
        candidates: unit numbers that may be selected, for every group or by group name; all that changed if None.
        distributed: whether all processes of `torch.distributed` make this call together, each scoring its share of the
            units from its share of the files; all get the ticket that one process would find.
        evidence: what the finder looks at, where that is not two checkpoints: `Batches`, `Runs`.

    Returns:
        the ticket; `ticket.save(folder)` keeps it.

    Raises:
        CheckpointError: if before and after cannot be read or compared.
        UnitError: if the model lacks the units, or a value is NaN or infinite.
        TicketError: if nothing, or everything, is selected.
        OptionError, UnknownNameError: if an option is wrong, or the finder looks at other evidence than it is given.

    Cost:
        Reads each tensor that holds units once. `TopK` and `Density` over more than 33 million units keep the scores
        of one group at a time and read three times as a rule.
    """
    method, chooser, kind = resolve_finder(finder), selector or Alpha(), granularity(units)
    ranks, base, looked_at = _opened(before, after, evidence, method, distributed)
    groups = ranks.groups(kind, base)

    def cut(scores: Sequence[UnitScores]) -> Ticket:
        return _selected(scores, base, looked_at, kind, method, chooser, candidates, ranks)

    if not isinstance(looked_at, Shift):
        return cut(list(method.score(groups, looked_at)))
    if isinstance(chooser, TopK | Density) and sum(group.num_units for group in groups) > _HELD_UNITS:
        ranks.require_one(f"more than {_HELD_UNITS} units, whose scores are not kept")
        return _streamed(groups, base, looked_at, kind, method, chooser, candidates)
    if isinstance(chooser, Alpha):
        # No correction rejects what is not below alpha, so the p-values from alpha on need not be exact.
        scores = ranks.score(method, groups, replace(looked_at, level=chooser.alpha))
        with suppress(TicketError):
            return cut(scores)
    return cut(ranks.score(method, groups, looked_at))


def score_units(
    before: Source,
    after: Source | None = None,
    units: str | Granularity = "token_rows",
    finder: str | Finder = "ks",
    distributed: bool = False,
    evidence: Evidence | None = None,
) -> list[UnitScores]:
    """Score every unit, selected or not; arguments and errors as `find_ticket`."""
    method = resolve_finder(finder)
    ranks, base, looked_at = _opened(before, after, evidence, method, distributed)
    groups = ranks.groups(granularity(units), base)
    if isinstance(looked_at, Shift):
        return ranks.score(method, groups, looked_at)
    return list(method.score(groups, looked_at))


def select_ticket(
    scores: Sequence[UnitScores],
    before: Source,
    after: Source | None = None,
    units: str | Granularity = "token_rows",
    finder: str | Finder = "ks",
    selector: Selector | None = None,
    candidates: Candidates | None = None,
    evidence: Evidence | None = None,
) -> Ticket:
    """Cut scores that `score_units` made with the same arguments; as `find_ticket`."""
    method = resolve_finder(finder)
    ranks, base, looked_at = _opened(before, after, evidence, method, distributed=False)
    return _selected(scores, base, looked_at, granularity(units), method, selector or Alpha(), candidates, ranks)


def _opened(
    before: Source, after: Source | None, evidence: Evidence | None, method: Finder, distributed: bool
) -> tuple[Ranks, Checkpoint, Evidence]:
    """The processes that take part, the base model, and the evidence that the finder gets."""
    if after is not None and evidence is not None:
        raise OptionError(f"after={after!r} and evidence={evidence.described} are given; a ticket has one evidence.")
    ranks = ranks_for(distributed)
    if after is None:
        ranks.require_one(f"no two checkpoints, but {(evidence or Evidence()).described}")
        require_evidence(method, evidence or Evidence())
        return ranks, open_checkpoint(before), evidence or Evidence()
    opened = ranks.open(before, after)
    shift = Shift(*opened)
    require_evidence(method, shift)
    return ranks, opened[0], shift


def _selected(
    scores: Sequence[UnitScores],
    base: Checkpoint,
    evidence: Evidence,
    kind: Granularity,
    method: Finder,
    chooser: Selector,
    candidates: Candidates | None,
    ranks: Ranks,
) -> Ticket:
    allowed = [entry.changed & _candidate_mask(entry, candidates) for entry in scores]
    selections = _selections(scores, chooser.select(scores, allowed))
    tested = int(sum(mask.sum() for mask in allowed))
    return _ticket(selections, base, evidence, kind, method, chooser, tested, candidates, ranks)


def _streamed(
    groups: Sequence[UnitGroup],
    base: Checkpoint,
    evidence: Evidence,
    kind: Granularity,
    method: Finder,
    chooser: TopK | Density,
    candidates: Candidates | None,
) -> Ticket:
    """The same ticket without the scores of more than one group in memory; the weights are read several times."""

    def rescore() -> Iterator[tuple[UnitScores, np.ndarray]]:
        for entry in method.score(groups, evidence):
            yield entry, entry.changed & _candidate_mask(entry, candidates)

    chosen = None
    if chooser.scope == "global":
        chosen = largest_streamed(rescore, chooser.count(sum(group.num_units for group in groups)))
    selections: dict[str, Selection] = {}
    tested = 0
    for position, (entry, allowed) in enumerate(rescore()):
        indices = chooser.select([entry], [allowed])[0] if chosen is None else chosen[position]
        selections |= _selections([entry], [indices])
        tested += int(allowed.sum())
    return _ticket(selections, base, evidence, kind, method, chooser, tested, candidates, Ranks())


def _selections(scores: Sequence[UnitScores], chosen: Sequence[np.ndarray]) -> dict[str, Selection]:
    return {
        entry.group.name: Selection(
            entry.group, indices, {name: column[indices] for name, column in entry.columns.items()}
        )
        for entry, indices in zip(scores, chosen, strict=True)
    }


def _ticket(
    selections: Mapping[str, Selection],
    base: Checkpoint,
    evidence: Evidence,
    kind: Granularity,
    method: Finder,
    chooser: Selector,
    tested: int,
    candidates: Candidates | None,
    ranks: Ranks,
) -> Ticket:
    if all(len(selection.indices) == selection.group.num_units for selection in selections.values()):
        raise TicketError(
            f"All {sum(len(selection.indices) for selection in selections.values())} units are selected, so the ticket "
            f"is the whole of {', '.join(selections)}. Lower alpha, use TopK(k), or probe with a lower learning rate."
        )
    details: dict[str, Any] = {
        "finder_options": asdict(method),  # type: ignore[call-overload]
        "selector": describe(chooser),
        "units": asdict(kind),  # type: ignore[call-overload]
        **evidence.details(),
        "tested": tested,
        "restricted_to_candidates": candidates is not None,
        "ks_lottery": __version__,
    }
    parameters = parameters_of([selection.group for selection in selections.values()])
    identity = ranks.identify(base, parameters, [selection.indices for selection in selections.values()])
    # As a file gives it back: tuples of options become lists.
    return Ticket(
        method.kind, kind.name, selections, identity, Provenance(method.name, json.loads(json.dumps(details)))
    )


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
