"""The page that people read: verdict, tables, pictures, and what to doubt."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ks_lottery.report.results import Result
from ks_lottery.report.size_plot import saved
from ks_lottery.report.tables import certificate_table, cost_table, meta_table, plain, row_table, score_table
from ks_lottery.report.verdict import verdict
from ks_lottery.ticket.markdown import code, number, percent
from ks_lottery.ticket.summary import cut_by

if TYPE_CHECKING:
    from ks_lottery.report.report import Report

SCORE_PICTURE, SHIFT_PICTURE, BYTES_PICTURE = "scores.png", "token_shift.png", "adapter_bytes.png"
DOUBTS = "Before you believe this"

_HOW_TO_READ = (
    "*Whole*: everything the model wrote, newlines as spaces. *First line*: only the first line that is not blank, "
    "so that a model which translates but does not stop is not punished for it. *Stops*: share of sentences whose "
    "continuation ended by itself. *Gain recovered*: (score − base) / (embed tuning − base). Square brackets hold "
    "bootstrap intervals over test sentences."
)


def page(report: "Report", results: Sequence[Result]) -> str:
    """The whole page.

    Args:
        report: what to show.
        results: its results, shares of the gain filled in.
    """
    parts = [f"# {plain(report.title)}", verdict(results, report.differences, report.tolerance)]
    if report.command is not None:
        parts.append(f"Made by:\n\n```\n{report.command}\n```")
    if report.meta:
        parts.append(meta_table(report.meta))
    parts += ["## Scores", score_table(results), f"![Scores]({SCORE_PICTURE})", _HOW_TO_READ]
    parts += ["## What it cost", cost_table(results)]
    if len(saved(results)) > 1:
        parts.append(f"![Score against the size of what was saved]({BYTES_PICTURE})")
    if report.ticket is not None:
        parts += ["## The ticket", _ticket_sentence(report.ticket), row_table(report.ticket["rows"])]
    if report.token_shift is not None:
        parts.append(f"![Shift of every token row]({SHIFT_PICTURE})")
    certified = [result for result in results if result.certificate is not None]
    if certified:
        parts += ["## Certificate", _certificate_sentence(certified), certificate_table(certified)]
    parts += [f"## {DOUBTS}", "\n".join(f"- {caveat}" for caveat in _caveats(report, results))]
    return "\n\n".join(parts) + "\n"


def _ticket_sentence(ticket: Mapping[str, Any]) -> str:
    details = ticket["provenance"]["details"]
    cut = cut_by(ticket)
    how = "" if cut is None else f", cut by {code(cut)}"
    tested = "" if details.get("tested") is None else f" out of {details['tested']:,} that changed"
    return (
        f"{ticket['num_units']:,} units of {code(ticket['granularity'])}{tested}, found by "
        f"{code(ticket['provenance']['method'])}{how}: {ticket['num_trainable']:,} weights, "
        f"{percent(ticket['density']['units'], 3)} of the matrices they lie in and "
        f"{percent(ticket['density']['model'], 4)} of the model {code(ticket['base']['name'])}. Fingerprint "
        f"{code(ticket['fingerprint'][:12])}."
    )


def _certificate_sentence(certified: Sequence[Result]) -> str:
    one = certified[0].certificate
    assert one is not None
    text = (
        "How often a run's most likely next token is embed tuning's, on held-out response tokens with the right text "
        f"given before them. The lower bound (Clopper-Pearson, confidence {1 - one.alpha:g}) is the certificate, and "
        "it is all that is certified: agreement of predictions, not translation quality. It takes tokens as "
        "independent; the bound by sentences (bootstrap) does not."
    )
    if one.tau is None:
        return text
    return (
        f"{text} The threshold tau({one.alpha:g}) = {one.tau:.4f} on D for rows of {one.row_length:,} values belongs "
        "to the selection of rows and guarantees nothing; the constants of the paper's own theorem are not public."
    )


def _caveats(report: "Report", results: Sequence[Result]) -> list[str]:
    caveats = [
        "**p is no error rate.** A row before and after tuning is paired, and its numbers are not independent draws, "
        "so the test's assumptions do not hold: p codes the size of a shift. Read D, shift / row norm and the counts "
        "beside it. D compares sorted values: a row whose numbers changed places has D = 0.",
        *_small_rows(report.ticket),
        "**Frequent tokens tend to move most.** Rows of the prompt occur in every example; no random row is as "
        "frequent, so the frequency control is the harder and fairer rival, and the random control the easier one.",
        *_learning_rates(results),
        "**Intervals cover the choice of test sentences only**, neither training seeds nor data order. A difference "
        "within an interval is no difference; one outside it still is one run of each.",
        "**Discovery is not free.** The ticket was found by a tuning of all rows first; what is small is the adapter.",
    ]
    if any(result.spbleu_whole is None for result in results):
        caveats.append("**spBLEU is missing** where its tokeniser was not at hand; nothing stands in for it.")
    return caveats


def _small_rows(ticket: Mapping[str, Any] | None) -> list[str]:
    shapes = [] if ticket is None else [shape for shape in ticket["base"]["shapes"].values() if len(shape) == 2]
    if not shapes or ticket is None or ticket["granularity"] != "token_rows":
        return []
    width = min(shape[1] for shape in shapes)
    return [
        f"**A row has {width:,} numbers**, so p falls below 0.05 only from D of about "
        f"{number(1.358 * math.sqrt(2 / width), 3)}; how many rows pass depends on learning rate and steps as much as "
        "on the task. Compare tickets of a fixed number of rows."
    ]


def _learning_rates(results: Sequence[Result]) -> list[str]:
    tried = {result.tried_learning_rates for result in results} - {None}
    if not tried:
        return []
    uneven = " They differ here, and more tries are an advantage." if len(tried) > 1 else ""
    return [f"**Learning rates were chosen on the development set**; the cost table says among how many.{uneven}"]
