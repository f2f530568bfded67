"""Sanity checks: what every finder must beat, and the verdict whether it does."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from ks_lottery.errors import DataError, TicketError
from ks_lottery.evaluation.record import Record
from ks_lottery.finders.base import UnitScores
from ks_lottery.finders.select import largest
from ks_lottery.stats.means import t_interval
from ks_lottery.ticket.ticket import Provenance, Ticket
from ks_lottery.training.examples import IGNORED_LABEL, Example, ResponseExamples
from ks_lottery.units.slab import UnitGroup, parameters_of

_ENOUGH = 4
_RIVALS = {"shuffled": "its own shuffles", "inverted": "its own inversion", "random": "random units"}


@dataclass(frozen=True)
class SanityVerdict:
    """Whether a finder beats a control.

    Attributes:
        method: the finder.
        control: what it is compared with ("shuffled").
        kind: of the tickets.
        units: granularity.
        pairs: cells of finder and control with the same units, task, density and replicate.
        mean: finder minus control, mean over the pairs; None without pairs.
        low: lower end of the t interval of that mean over pairs; None for fewer than 2 pairs.
        high: upper end.
        verdict: "passes" where the interval lies above 0, "fails: does not beat its own shuffles", or "unknown: ..."
            where there are fewer than 4 pairs and the mean is above 0: an interval of so few says nothing.
    """

    method: str
    control: str
    kind: str
    units: str
    pairs: int
    mean: float | None
    low: float | None
    high: float | None
    verdict: str

    @property
    def passes(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.verdict == "passes"

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def inverted_like(
    ticket: Ticket, scores: Sequence[UnitScores], candidates: Mapping[str, Sequence[int] | np.ndarray] | None = None
) -> Ticket:
    """The units that the finder puts last, as many in all as the ticket has.

    Args:
        ticket: what to imitate.
        scores: what its finder gave for every group; units that did not change stay out.
        candidates: unit numbers by group, where the ticket was chosen among some only; all if None.

    Raises:
        TicketError: if the scores are not of the ticket's groups, fewer units can be chosen than the ticket has, or the
            units that come last are the ticket's own.

    Source:
        Frankle et al. 2020, arXiv 2009.08576.
    """
    groups = {entry.group.name: entry.group for entry in scores}
    if groups != {name: selection.group for name, selection in ticket.selections.items()}:
        raise TicketError(
            f"The scores are of groups {sorted(groups)}, the ticket of {sorted(ticket.selections)}. Give the scores "
            "that it was cut from."
        )
    allowed = [entry.changed.copy() for entry in scores]
    if candidates is not None:
        for entry, mask in zip(scores, allowed, strict=True):
            mask &= np.isin(np.arange(len(mask)), candidates.get(entry.group.name, ()))
    chosen = largest([-entry.score for entry in scores], allowed, len(ticket))
    indices = {entry.group.name: units for entry, units in zip(scores, chosen, strict=True)}
    inverted = ticket.with_units(indices, Provenance("inverted_like", {"like": ticket.fingerprint}))
    if inverted == ticket:
        raise TicketError(
            f"The {len(ticket)} units with the smallest scores are the ticket's own: there is nothing else to choose "
            "from. Use a ticket of a lower density."
        )
    return inverted


def reinitialised(model: torch.nn.Module, where: Ticket | Sequence[UnitGroup], seed: int) -> torch.nn.Module:
    """A copy of a model whose weights were permuted within each tensor that a ticket touches.

    Every such tensor keeps its values and loses their places; all other tensors stay bitwise as they are. A ticket that
    is worth as much on this base as on its own does not depend on what was learnt there.

    Args:
        model: the base; it stays as it is.
        where: a ticket, whose groups with selected units count, or unit groups.
        seed: of the permutations; the same seed gives the same ones on every machine.

    Raises:
        TicketError: if the model lacks such a tensor, or none of them has two different values.

    Cost:
        A copy of the model.

    Source:
        Frankle et al. 2020, arXiv 2009.08576, for "reinit"; permuting the pretrained values instead is ours.
    """
    if isinstance(where, Ticket):
        groups = [selection.group for selection in where.selections.values() if len(selection)]
    else:
        groups = list(where)
    names = list(parameters_of(groups))
    permuted = copy.deepcopy(model)
    parameters = dict(permuted.named_parameters())
    generator = np.random.default_rng(seed)
    moved = False
    for name in names:
        if name not in parameters:
            raise TicketError(f"The model has no parameter {name!r}, which the units lie in. Give their base model.")
        with torch.no_grad():
            values = parameters[name].reshape(-1)
            order = torch.from_numpy(generator.permutation(values.numel())).to(values.device)
            shuffled = values[order].reshape(parameters[name].shape)
            moved = moved or not torch.equal(shuffled, parameters[name])
            parameters[name].copy_(shuffled)
    if not moved:
        raise TicketError(
            f"Permuting the values of {', '.join(names)} changes nothing, since each has only one value. "
            "Reinitialise tensors that hold something."
        )
    return permuted


def permuted_labels(dataset: Any, seed: int, field: str = "labels") -> Any:
    """A data set in which every example has the label, or the response, of another one.

    Classes are handed on along one random cycle through all examples. Tokenised responses (lists whose leading
    `IGNORED_LABEL` mark the prompt) are handed on together with their tokens, so that labels still are the tokens that
    the model reads; an example can become longer than any was.

    Args:
        dataset: a sequence of mappings, or `ResponseExamples`.
        seed: of the cycle; the same seed gives the same one on every machine.
        field: what holds the labels.

    Returns:
        `ResponseExamples` for such, otherwise a list of dicts.

    Raises:
        DataError: if there are fewer than 2 examples, an example lacks the field, all labels are the same, or an
            example with response tokens has fields beyond its tokens and labels.

    Source:
        Su et al. 2020, arXiv 2009.11094, for the corrupted data.
    """
    rows = [dict(dataset[index]) for index in range(len(dataset))]
    if len(rows) < 2:
        raise DataError(f"Labels of {len(rows)} examples cannot be permuted. Give at least 2.")
    lacking = next((number for number, row in enumerate(rows) if field not in row), None)
    if lacking is not None:
        raise DataError(
            f"Row {lacking} has no {field!r}, it has {sorted(rows[lacking])}. Name the field of the labels."
        )
    tokens = [_is_response(row, field) for row in rows]
    givers = _cycle(len(rows), seed)
    if all(tokens):
        return _with_responses(dataset, rows, givers, field)
    labels = [row[field] for row in rows]
    if all(np.array_equal(label, labels[0]) for label in labels):
        raise DataError(f"All {len(rows)} examples have the label {labels[0]!r}, so permuting changes nothing.")
    return [{**row, field: labels[giver]} for row, giver in zip(rows, givers, strict=True)]


def beats_its_shuffles(records: Sequence[Record]) -> list[SanityVerdict]:
    """Whether finders beat tickets that keep their number of units in each group and nothing else; as `beats`."""
    return beats(records, "shuffled")


def beats(records: Sequence[Record], control: str = "shuffled", confidence: float = 0.95) -> list[SanityVerdict]:
    """Compare every finder with a control of it, pair by pair.

    A pair has the same kind, units, task, density and replicate, and the ticket was found on that task. Where several
    controls of all finders fit (two ways to draw at random), their mean is the rival. Pairs of all tasks, densities and
    replicates count alike, and the interval takes them as independent.

    Args:
        records: all cells; failed ones make no pair.
        control: what the control does: "shuffled", "inverted", "random", ...
        confidence: of the t interval, in (0, 1).

    Returns:
        one verdict for each kind, units and finder.

    Raises:
        OptionError: if the confidence is not in (0, 1).
    """
    finders: dict[tuple[str, str, str], list[Record]] = {}
    rivals: dict[tuple[Any, ...], list[float]] = {}
    for record in records:
        if record.role == "finder" and record.found_on == record.task:
            finders.setdefault((record.kind, record.units, record.method), []).append(record)
            continue
        fits = record.role == "control" and record.control == control and record.found_on in ("", record.task)
        if fits and record.score is not None:
            rivals.setdefault((record.of, *_place(record)), []).append(record.score)
    verdicts = []
    for (kind, units, method), found in finders.items():
        differences = []
        for record in found:
            rival = rivals.get((method, *_place(record))) or rivals.get(("", *_place(record)))
            if rival and record.score is not None:
                differences.append(record.score - float(np.mean(rival)))
        verdicts.append(_verdict(method, control, kind, units, differences, confidence))
    return verdicts


def _verdict(
    method: str, control: str, kind: str, units: str, differences: Sequence[float], confidence: float
) -> SanityVerdict:
    interval = t_interval(differences, confidence) if differences else None
    mean = float(np.mean(differences)) if differences else None
    if interval is None:
        return SanityVerdict(
            method, control, kind, units, len(differences), mean, None, None, f"unknown: fewer than {_ENOUGH} pairs"
        )
    verdict = f"fails: does not beat {_RIVALS.get(control, f'the control {control!r}')}"
    if interval.low > 0:
        verdict = "passes"
    elif len(differences) < _ENOUGH and interval.value > 0:
        verdict = f"unknown: fewer than {_ENOUGH} pairs"
    return SanityVerdict(method, control, kind, units, len(differences), mean, interval.low, interval.high, verdict)


def _place(record: Record) -> tuple[Any, ...]:
    return record.kind, record.units, record.task, record.density, record.replicate


def _cycle(count: int, seed: int) -> list[int]:
    """Who gives to each: one cycle through all, so nobody gives to itself."""
    order = np.random.default_rng(seed).permutation(count)
    givers = np.empty(count, dtype=np.int64)
    givers[order] = np.roll(order, 1)
    numbers: list[int] = givers.tolist()
    return numbers


def _is_response(row: Mapping[str, Any], field: str) -> bool:
    """Whether the labels stand beside the tokens, one by one."""
    listed = isinstance(row[field], Sequence | np.ndarray | torch.Tensor) and not isinstance(row[field], str)
    return listed and "input_ids" in row and np.shape(row[field]) == np.shape(row["input_ids"])


def _with_responses(dataset: Any, rows: Sequence[dict[str, Any]], givers: Sequence[int], field: str) -> Any:
    parts = []
    for number, row in enumerate(rows):
        if set(row) != {"input_ids", field}:
            raise DataError(
                f"Row {number} has the fields {sorted(row)}, and only 'input_ids' and {field!r} can be handed on with "
                "a response. Leave the others to the collator."
            )
        labels, tokens = list(map(int, row[field])), list(map(int, row["input_ids"]))
        start = next((place for place, label in enumerate(labels) if label != IGNORED_LABEL), len(labels))
        parts.append((tokens[:start], tokens[start:], labels[start:]))
    if all(part[1:] == parts[0][1:] for part in parts):
        raise DataError(f"All {len(rows)} examples have the same response, so permuting changes nothing.")
    examples = []
    for (prompt, _, _), giver in zip(parts, givers, strict=True):
        _, response, labels = parts[giver]
        examples.append({"input_ids": prompt + response, field: [IGNORED_LABEL] * len(prompt) + labels})
    if isinstance(dataset, ResponseExamples):
        return ResponseExamples([Example(**example) for example in examples])  # type: ignore[typeddict-item]
    return examples
