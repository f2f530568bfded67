"""A ticket as plain JSON values: what its model card and its report show."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ks_lottery.errors import OptionError
from ks_lottery.ticket.tokens import TokenTable, readable_tokens

if TYPE_CHECKING:
    from ks_lottery.ticket.ticket import Selection, Ticket

Counts = Sequence[int] | np.ndarray


def ticket_summary(
    ticket: "Ticket",
    tokenizer: TokenTable | None = None,
    *,
    counts: Counts | None = None,
    prompt_counts: Counts | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """Describe a ticket and each of its units.

    Args:
        ticket: what to describe.
        tokenizer: names the units where they are token rows; they stay unnamed if None.
        counts: [vocabulary] occurrences of each token in the training text.
        prompt_counts: [vocabulary] occurrences of each token in the prompt around one sentence.
        limit: describe so many units at most, those that stand first; all if None.

    Returns:
        `Ticket.to_dict()` with `num_units`, `num_trainable`, `density` by scope, and `rows`: one entry per selected
        unit with `group`, `id`, `token`, `statistic`, `log10_p`, `shift`, `relative_shift`, `score`, `count` and
        `prompt_count`, None where unknown; by statistic (else by score) descending, then by group and id.

    Raises:
        OptionError: if counts are given for another vocabulary.
    """
    rows = [
        row
        for name, selection in ticket.selections.items()
        if len(selection)
        for row in _rows(name, _first(selection, limit), tokenizer, {"count": counts, "prompt_count": prompt_counts})
    ]
    rows.sort(key=_place)
    return {
        **ticket.to_dict(),
        "num_units": len(ticket),
        "num_trainable": ticket.num_trainable(),
        "density": {"units": ticket.density("units"), "model": ticket.density("model")},
        "rows": rows[:limit],
    }


def cut_by(summary: Mapping[str, Any]) -> str | None:
    """The rule that cut the ticket out of the scores, as code ("TopK(k=18, scope='global')"), or None if there is none.

    Args:
        summary: what `ticket_summary` gives.
    """
    options = dict(summary["provenance"]["details"].get("selector") or {})
    name = options.pop("name", None)
    return None if name is None else f"{name}({', '.join(f'{key}={value!r}' for key, value in options.items())})"


def _rows(
    name: str, selection: "Selection", tokenizer: TokenTable | None, counts: Mapping[str, Counts | None]
) -> list[dict[str, Any]]:
    units = selection.indices
    tokens = [None] * len(units) if tokenizer is None else readable_tokens(tokenizer, units.tolist())
    columns: dict[str, list[Any]] = {"group": [name] * len(units), "id": units.tolist(), "token": list(tokens)}
    for column in ("statistic", "log_p", "shift", "relative_shift", "score"):
        values = selection.columns.get(column, np.full(len(units), np.nan))
        columns["log10_p" if column == "log_p" else column] = [
            _finite(value / math.log(10) if column == "log_p" else value) for value in values.tolist()
        ]
    for column, given in counts.items():
        columns[column] = [None] * len(units) if given is None else _take(column, given, selection)
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _first(selection: "Selection", limit: int | None) -> "Selection":
    """The units of a selection that stand first, without a row for each of the others."""
    if limit is None or len(selection) <= limit:
        return selection
    nothing = np.full(len(selection), np.nan)
    score = selection.columns.get("score", nothing)
    key = selection.columns.get("statistic", nothing)
    key = np.where(np.isfinite(key), key, score)
    chosen = np.sort(np.argsort(-np.where(np.isfinite(key), key, -np.inf), kind="stable")[:limit])
    columns = {name: values[chosen] for name, values in selection.columns.items()}
    return replace(selection, indices=selection.indices[chosen], columns=columns)


def _place(row: Mapping[str, Any]) -> float:
    """Where a row stands: by the first of its numbers that is known."""
    known = (row[name] for name in ("statistic", "score") if row[name] is not None)
    return -float(next(known, -math.inf))


def _take(column: str, given: Counts, selection: "Selection") -> list[int]:
    counts = np.asarray(given)
    if counts.shape != (selection.group.num_units,):
        raise OptionError(
            f"{column}s has shape {counts.shape}, but group {selection.group.name!r} has {selection.group.num_units} "
            "units; give one count per unit."
        )
    return [int(count) for count in counts[selection.indices]]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
