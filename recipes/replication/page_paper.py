"""The paper's figures beside those of the study, for PAPERS.md, and the short table of the README."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from ks_lottery.ticket.markdown import MISSING, table
from ks_lottery.ticket.ticket import Ticket
from replication.laboratory import Laboratory
from replication.means import Means, shown, spread
from replication.spans import SPANS
from replication.tickets import rows_of

README_ROWS = (
    "base", "embed", "full", "ks", "ks-0.05", "transfer-ks", "frequency", "count-matched", "newline", "rows-and-norms",
    "lora-1", "lora-8", "prefix",
)  # fmt: skip


def readme_table(lab: Laboratory, titles: dict[str, str]) -> str:
    """Scores of the methods that matter most, every direction a column."""
    means, full = Means(lab), lab.setting.full_directions
    rows = []
    for name in README_ROWS:
        scores = [means.mean(direction, name, "bleu_whole") for direction in (*full, *lab.setting.brief)]
        if all(score is None for score in scores):
            continue
        first, stops = (means.mean(full, name, key) for key in ("bleu_first_line", "stop_rate"))
        if first is None:
            first, stops = (means.mean(lab.setting.tuned_on, name, key) for key in ("bleu_first_line", "stop_rate"))
        trained = means.cost(lab.setting.tuned_on, name, "trainable")
        size = means.cost(lab.setting.tuned_on, name, "adapter_bytes")
        rows.append(
            [
                titles[name],
                f"{np.mean(trained):,.0f}" if trained else MISSING,
                f"{np.mean(size) / 1000:,.1f} kB" if any(size) else MISSING,
                *(shown(score) for score in scores),
                shown(first),
                MISSING if stops is None else f"{stops:.0%}",
            ]
        )
    header = ["run", "trained weights", "adapter", *(f"en-{name}" for name in full),
              *(f"{name.partition('-')[0]} en-{name.rpartition('-')[2]}" for name in lab.setting.brief),
              "first line", "stops"]  # fmt: skip
    return table(header, rows)


def paper_table(lab: Laboratory) -> str:
    """Every figure of the paper and of its replication that the study has a counterpart of."""
    rows = [list(figures) for figures in _figures(lab) if figures[-1] != MISSING]
    return table(["what", "paper", "replication", "here"], rows)


def _figures(lab: Laboratory) -> Iterator[tuple[str, str, str, str]]:
    means, full = Means(lab), lab.setting.full_directions

    def scores(name: str, key: str = "bleu_whole") -> str:
        return _joined(full, [shown(means.mean(direction, name, key)) for direction in full])

    yield "untuned model, whole", "4.6 on average; ca 5.7", "ca 6.2", scores("base")
    yield "untuned model, first line", MISSING, "ca 34.0", scores("base", "bleu_first_line")
    yield "full tuning", "27.3 on average", MISSING, scores("full")
    yield "embed tuning", "29.0 on average", "ca 34.6", scores("embed")
    yield "prefix tuning", "17.4 on average", MISSING, scores("prefix")
    yield "18 KS rows, trained", "27.9 on average; ca 37.7", "ca 35.7 (3 seeds)", scores("ks")
    yield "most frequent rows, trained", "28.8 (embed tuning 27.9)", MISSING, scores("frequency")
    yield "18 random rows of equal counts, no prompt row", MISSING, "ca +12.0 (ticket +29.7)", scores("count-matched")
    yield "newline row alone", MISSING, "ca 35.0", scores("newline")
    for alpha, published in ((0.05, "18 (ca)"), (0.5, "81 (ca)"), (0.95, "3,213 (ca)")):
        replication = "4 to 5" if alpha == 0.05 else MISSING
        counts = [_units(lab, direction, f"ks-{alpha:g}") for direction in full]
        yield f"rows with p < {alpha:g}", published, replication, _joined(full, counts)
    stopping = [_share_of_stopping(means, direction) for direction in full]
    yield "share of the ticket's gain that is stopping", MISSING, "ca 94 %, es 97 %, ro 107 %", _joined(full, stopping)
    for span, replication in zip(SPANS, ("1.00", "-0.00", "0.05"), strict=True):
        shares = [_share_in_span(means, direction, span) for direction in full]
        yield f"gain that is left if rows act in the {span} only", MISSING, replication, _joined(full, shares)
    for prompt in lab.setting.paraphrases:
        whole, other = (means.gain(lab.setting.tuned_on, "ks", "bleu_whole", end) for end in ("", f"@{prompt}"))
        here = MISSING if whole is None or other is None else f"+{whole:.1f} becomes {other:+.1f}"
        yield f"gain of the rows on another prompt ({prompt})", MISSING, "+29.2 becomes +3.2", here
    yield "rows shared by two languages, of 18", "10 of 15 to 18 by all six", "10 to 11.6", _shared(lab, "directions")
    yield "rows shared by two seeds, of 18", MISSING, "17.4 to 18 (by move)", _shared(lab, "seeds")


def _joined(directions: tuple[str, ...], values: list[str]) -> str:
    if all(value == MISSING for value in values):
        return MISSING
    return ", ".join(f"{direction} {value}" for direction, value in zip(directions, values, strict=True))


def _units(lab: Laboratory, direction: str, ticket: str) -> str:
    found = []
    for seed in lab.setting.seeds:
        name = lab.ticket_cell(direction, seed, ticket)
        if name in lab.cells.cells and lab.cells.record(name) is not None:
            found.append(float(lab.cells.result(name)["units"]))
    return spread(found, 0)


def _share_of_stopping(means: Means, direction: str) -> str:
    whole, first = (means.gain(direction, "ks", f"bleu_{text}") for text in ("whole", "first_line"))
    return MISSING if whole is None or first is None or whole < 1 else f"{1 - first / whole:.0%}"


def _share_in_span(means: Means, direction: str, span: str) -> str:
    everywhere = means.gain(direction, "ks", "bleu_whole")
    there = means.gain(direction, f"ks/{span}", "bleu_whole", kind="spans")
    return MISSING if everywhere is None or there is None or everywhere < 1 else f"{there / everywhere:.2f}"


def _shared(lab: Laboratory, over: str) -> str:
    """Smallest, mean and largest number of rows that two tickets share, over directions or over seeds."""
    tickets: dict[tuple[str, int], Ticket] = {}
    for direction in lab.setting.full_directions:
        for seed in lab.setting.seeds:
            name = lab.ticket_cell(direction, seed, "ks")
            if name in lab.cells.cells and lab.cells.record(name) is not None:
                ticket = lab.ticket(direction, seed, "ks")
                assert ticket is not None
                tickets[direction, seed] = ticket
    kept = 1 if over == "directions" else 0
    counts = [
        float(len(np.intersect1d(rows_of(tickets[one]), rows_of(tickets[other]))))
        for one, other in combinations(tickets, 2)
        if one[kept] == other[kept]
    ]
    return spread(counts)
