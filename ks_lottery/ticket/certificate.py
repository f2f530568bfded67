"""The certificates that lie beside a ticket: what was shown of it on held-out data, and that alone."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ks_lottery.checkpoints.strict_json import strict_json_file
from ks_lottery.errors import TicketError
from ks_lottery.ticket.markdown import percent

OF_THE_TICKET = ("partial tuning", "partial transfer")
"""Rows of a report's score table that are about the ticket itself."""

RESULTS_FILES = ("report/results.json", "results.json")
"""Where a report lies in the folder of a ticket."""

_NUMBERS = ("tokens", "rate", "lower_bound", "sentence_lower_bound", "alpha")


def results_beside(folder: str | os.PathLike[str]) -> tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]:
    """The score table of the report in a folder, without what a report needs besides.

    Args:
        folder: of a ticket, with a report in it or in its subfolder `report`.

    Returns:
        rows of the table and facts about the run, as JSON values; both empty if there is no report.

    Raises:
        TicketError: if there is one and it is damaged.
    """
    for name in RESULTS_FILES:
        file = Path(folder) / name
        if not file.is_file():
            continue
        try:
            data = strict_json_file(file)
            rows, meta = data["rows"], data.get("meta", {})
            if not all(isinstance(row, dict) and isinstance(row.get("name"), str) for row in rows):
                raise ValueError("a row of its table has no name")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TicketError(
                f"The report {str(file)!r} is damaged or of another kind ({error}). Remove it, or run what made it "
                "again."
            ) from error
        return rows, meta
    return (), {}


def certificates(results: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """The certificates of a ticket.

    Args:
        results: rows of a score table as JSON values.

    Returns:
        name of the run and `Agreement.to_dict()`, for each run of the ticket that has one.
    """
    found = [(row["name"], row.get("certificate")) for row in results if row["name"] in OF_THE_TICKET]
    return [(name, one) for name, one in found if isinstance(one, Mapping) and set(_NUMBERS) <= set(one)]


def in_words(run: str, agreement: Mapping[str, Any]) -> str:
    """A certificate in words, with all that it does not say.

    Args:
        run: name of the run.
        agreement: `Agreement.to_dict()`.
    """
    by_sentence = agreement["sentence_lower_bound"]
    also = "" if by_sentence is None else f", or {percent(by_sentence, 2)} by a bootstrap over sentences"
    return (
        f"Certificate: on {agreement['tokens']:,} held-out tokens, {run} predicts the same next token as "
        f"embed tuning in {percent(agreement['rate'], 2)}; with confidence {percent(1 - agreement['alpha'])} the "
        f"true rate is at least {percent(agreement['lower_bound'], 2)} (Clopper-Pearson){also}. That is agreement "
        "of predictions, not quality."
    )
