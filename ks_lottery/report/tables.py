"""The tables of a report, as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from ks_lottery.report.results import Result
from ks_lottery.ticket.markdown import MISSING, code, data_size, number, percent, table

_ROWS_SHOWN = 100


def score_table(results: Sequence[Result]) -> str:
    """Scores with their intervals, stop rates and recovered gains."""
    header = [
        "run", "BLEU, whole", "BLEU, first line", "chrF, whole", "chrF, first line", "spBLEU", "stops",
        "gain recovered, whole", "gain recovered, first line",
    ]  # fmt: skip
    rows = [
        [
            plain(result.name),
            _with_interval(result.bleu_whole, result.bleu_whole_interval),
            _with_interval(result.bleu_first_line, result.bleu_first_line_interval),
            number(result.chrf_whole),
            number(result.chrf_first_line),
            number(result.spbleu_whole),
            percent(result.stop_rate),
            percent(result.gain_recovered_whole),
            percent(result.gain_recovered_first_line),
        ]
        for result in results
    ]
    return table(header, rows)


def cost_table(results: Sequence[Result]) -> str:
    """What each run trained, and what that took."""
    header = ["run", "trained weights", "adapter", "learning rate", "rates tried", "steps", "time", "peak memory"]
    rows = [
        [
            plain(result.name),
            number(result.trainable, 0),
            data_size(result.adapter_bytes),
            MISSING if result.learning_rate is None else f"{result.learning_rate:g}",
            number(result.tried_learning_rates, 0),
            number(result.steps, 0),
            MISSING if result.seconds is None else f"{number(result.seconds)} s",
            data_size(result.peak_memory),
        ]
        for result in results
    ]
    return table(header, rows)


def certificate_table(results: Sequence[Result]) -> str:
    """Agreement with embed tuning's predictions: the lower bound is what is certified, and nothing else."""
    certified = [(result.name, result.certificate) for result in results if result.certificate is not None]
    header = ["run", "agreement", "certified: at least", "the same, by sentences", "tokens", "sentences"]
    rows = [
        [
            plain(name),
            percent(one.rate, 2),
            percent(one.lower_bound, 2),
            percent(one.sentence_lower_bound, 2),
            number(one.tokens, 0),
            number(one.sentences, 0),
        ]
        for name, one in certified
    ]
    return table(header, rows)


def row_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The ticket's units as `ticket_summary` lists them; the first 100."""
    groups = len({row["group"] for row in rows}) > 1
    header = ["token", "id", "D", "log10 p", "shift / row norm", "count in training", "count in prompt"]
    lines = [
        [
            MISSING if row["token"] is None else code(row["token"]),
            str(row["id"]),
            number(row["statistic"], 3),
            number(row["log10_p"], 2),
            number(row["relative_shift"], 3),
            number(row["count"], 0),
            number(row["prompt_count"], 0),
        ]
        for row in rows[:_ROWS_SHOWN]
    ]
    if groups:
        header.insert(0, "group")
        lines = [[code(row["group"]), *line] for row, line in zip(rows, lines, strict=False)]
    shown = table(header, lines, left=1 + groups)
    hidden = len(rows) - len(lines)
    return f"{shown}\n\n{hidden:,} more are in `results.json`." if hidden else shown


def meta_table(meta: Mapping[str, Any]) -> str:
    """What is known of the run, one fact per line."""
    return table(["", ""], [[plain(str(name)), plain(str(value))] for name, value in meta.items()], left=2)


def plain(text: str) -> str:
    """A text that neither ends a cell nor becomes markup."""
    for mark in "\\`*_<|[":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())


def _with_interval(score: float | None, interval: tuple[float, float] | None) -> str:
    return number(score) if interval is None else f"{number(score)} [{number(interval[0])}, {number(interval[1])}]"
