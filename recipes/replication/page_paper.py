"""The paper's figures beside those of the study, for PAPERS.md, and the short table of the README."""

from collections.abc import Iterator

import numpy as np

from ks_lottery.ticket.markdown import MISSING, table
from replication.laboratory import Laboratory
from replication.means import Means, shown, spread
from replication.spans import SPANS
from replication.ticket_pairs import Pairs, over_directions, over_seeds, shared_units

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
        counts = [spread(means.units(direction, f"ks-{alpha:g}"), 0) for direction in full]
        yield f"rows with p < {alpha:g}", published, replication, _joined(full, counts)
    stopping = [_share(means.stopping_share(direction, "ks"), "{:.0%}") for direction in full]
    yield "share of the ticket's gain that is stopping", MISSING, "ca 94 %, es 97 %, ro 107 %", _joined(full, stopping)
    for span, replication in zip(SPANS, ("1.00", "-0.00", "0.05"), strict=True):
        shares = [_share(means.span_share(direction, "ks", span), "{:.2f}") for direction in full]
        yield f"gain that is left if rows act in the {span} only", MISSING, replication, _joined(full, shares)
    for prompt in lab.setting.paraphrases:
        whole, other = (means.gain(lab.setting.tuned_on, "ks", "bleu_whole", end) for end in ("", f"@{prompt}"))
        here = MISSING if whole is None or other is None else f"+{whole:.1f} becomes {other:+.1f}"
        yield f"gain of the rows on another prompt ({prompt})", MISSING, "+29.2 becomes +3.2", here
    yield (
        "rows shared by two languages, of 18",
        "10 of 15 to 18 by all six",
        "10 to 11.6",
        _shared(over_directions(lab)),
    )
    yield "rows shared by two seeds, of 18", MISSING, "17.4 to 18 (by move)", _shared(over_seeds(lab))


def _share(value: float | None, form: str) -> str:
    return MISSING if value is None else form.format(value)


def _joined(directions: tuple[str, ...], values: list[str]) -> str:
    if all(value == MISSING for value in values):
        return MISSING
    return ", ".join(f"{direction} {value}" for direction, value in zip(directions, values, strict=True))


def _shared(pairs: Pairs) -> str:
    """Mean, smallest and largest number of units that the tickets of each pair share."""
    return spread([float(shared_units(one, other)) for one, other in pairs])
