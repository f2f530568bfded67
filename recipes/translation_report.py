"""From tested methods to the report's rows, and from a report to the Hub."""

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from translation_ticket import TokenCounts

from ks_lottery.adapter.export.plain import PLAIN_ADAPTER
from ks_lottery.checkpoints.writer import write_json
from ks_lottery.evaluation.agreement import Agreement, ResponseArgmax, agreement
from ks_lottery.evaluation.translation import TranslationScores
from ks_lottery.report.examples import evenly_chosen
from ks_lottery.report.report import EXAMPLES, Report, read_report, rebuild_report, write_report
from ks_lottery.report.results import (
    BASE,
    EMBED_TUNING,
    FREQUENCY_CONTROL,
    FULL_TUNING,
    PARTIAL_TUNING,
    RANDOM_CONTROL,
    PairedDifference,
    Result,
)
from ks_lottery.report.token_shift import TokenShift
from ks_lottery.ticket.card import ticket_card
from ks_lottery.ticket.hub import push_folder
from ks_lottery.ticket.summary import ticket_summary
from ks_lottery.ticket.ticket import Ticket
from ks_lottery.ticket.tokens import readable_tokens


@dataclasses.dataclass(frozen=True)
class Tested:
    """A method with its scores on the test set.

    Attributes:
        name: row of the table.
        scores: on the test set.
        predictions: its teacher-forced predictions there.
        trained: what its training cost and chose; empty if nothing was trained.
    """

    name: str
    scores: TranslationScores
    predictions: ResponseArgmax
    trained: Mapping[str, Any]


def write_run_report(
    folder: Path,
    tested: Sequence[Tested],
    ticket: Ticket,
    shift: TokenShift,
    tokenizer: Any,
    counts: TokenCounts,
    command: str,
    meta: Mapping[str, Any],
    alpha: float,
    sources: Sequence[str],
) -> Path:
    """Write `report.html`, `report.md`, `results.json` and the pictures.

    Args:
        folder: of the report.
        tested: rows of the table, in order.
        ticket: the ticket that partial tuning trained.
        shift: every token row.
        tokenizer: names the rows.
        counts: of the tokens.
        command: that made the run.
        meta: facts about it.
        alpha: the certificate holds with confidence 1 - alpha; 0.05 where the selector's alpha leaves no confidence.
        sources: of the test set, some of which the HTML page shows with their translations.
    """
    named = {method.name: method for method in tested}
    reference = named[EMBED_TUNING].predictions
    level = alpha if alpha < 0.5 else 0.05
    row_length = min(shape[-1] for shape in ticket.base.shapes.values())
    results = []
    for method in tested:
        certified = (
            None
            if method.name == EMBED_TUNING
            else agreement(method.predictions, reference, alpha=level, row_length=row_length)
        )
        results.append(result_of(method, certified))
    differences = [
        PairedDifference.between(PARTIAL_TUNING, named[PARTIAL_TUNING].scores, control, named[control].scores)
        for control in (EMBED_TUNING, RANDOM_CONTROL, FREQUENCY_CONTROL)
    ]
    summary = ticket_summary(ticket, tokenizer, counts=counts.training, prompt_counts=counts.prompt)
    shown = {name: named[name].scores for name in (BASE, FULL_TUNING, PARTIAL_TUNING) if name in named}
    names = readable_tokens(tokenizer, range(len(shift.count)))
    report = Report(
        results, ticket=summary, token_shift=dataclasses.replace(shift, tokens=names), differences=differences,
        examples=evenly_chosen(sources, shown), title="Translation ticket", command=command, meta=meta,
    )  # fmt: skip
    return write_report(folder, report)


def result_of(method: Tested, certified: Agreement | None) -> Result:
    """One row of the table."""
    trained = method.trained
    return Result.of(
        method.name,
        method.scores,
        trainable=trained.get("trainable"),
        adapter_bytes=trained.get("adapter_bytes"),
        learning_rate=trained.get("rate"),
        tried_learning_rates=trained.get("tries"),
        steps=trained.get("steps"),
        certificate=certified,
        seconds=trained.get("seconds"),
        peak_memory=trained.get("peak_bytes"),
    )


def push_run(
    adapter: Path,
    ticket: Ticket,
    report: Path,
    counts: TokenCounts,
    repo_id: str,
    private: bool,
    tokenizer: Any,
    language: str,
    base: str,
) -> str:
    """Push the tuned adapter, its plain form, the ticket, the report and a model card in one commit.

    The base model is named only if it is a Hub id: a path of this machine means nothing elsewhere. Test sentences are
    not published: the report goes without its examples.

    Returns:
        URL of the commit.
    """
    results = [result.to_dict() for result in read_report(report).results]
    hub_base = None if Path(base).exists() else base
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "repository"
        shutil.copytree(adapter, folder)
        for config in folder.rglob("adapter_config.json"):
            values = json.loads(config.read_text(encoding="utf-8"))
            write_json(config, {**values, "base_model_name_or_path": hub_base})
        shutil.copytree(report, folder / "report")
        (folder / "report" / EXAMPLES).unlink(missing_ok=True)
        rebuild_report(folder / "report")
        ticket.save(folder)
        card = ticket_card(
            ticket_summary(ticket, tokenizer, counts=counts.training), repo_id, results=results,
            plain_subfolder=PLAIN_ADAPTER, base_model=hub_base, language=language,
        )  # fmt: skip
        card.save(folder / "README.md")
        return push_folder(folder, repo_id, private=private)
