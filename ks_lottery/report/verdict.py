"""What the numbers say, in one paragraph of plain words."""

from collections.abc import Mapping, Sequence

from ks_lottery.report.results import (
    BASE,
    EMBED_TUNING,
    FREQUENCY_CONTROL,
    FULL_TUNING,
    PARTIAL_TUNING,
    RANDOM_CONTROL,
    PairedDifference,
    Result,
    by_name,
    gain,
    with_gains,
)
from ks_lottery.ticket.markdown import number, percent

_WHAT_CONTROLS_TELL = {
    RANDOM_CONTROL: "whether any rows of this number would do as well",
    FREQUENCY_CONTROL: "whether simply taking the most frequent tokens would do as well",
}


def verdict(results: Sequence[Result], differences: Sequence[PairedDifference] = (), tolerance: float = 1.0) -> str:
    """Say whether the ticket carries what embed tuning gains, and whether that is more than its controls carry.

    Args:
        results: rows of a score table; those named in `results.py` are read.
        differences: paired intervals; without one for a control, the two results' own intervals are compared.
        tolerance: BLEU that a winning ticket may lie below full tuning.

    Returns:
        one paragraph; what cannot be answered is said to be missing.

    Raises:
        DataError: if two results have one name, or there is none.
    """
    named = by_name(with_gains(results))
    ticket = named.get(PARTIAL_TUNING)
    if ticket is None or ticket.bleu_whole is None:
        return "The ticket was not trained and scored (no partial tuning result), so there is no verdict."
    sentences = [_recovery(ticket, named)]
    sentences += [_against(ticket, name, named, differences) for name in (RANDOM_CONTROL, FREQUENCY_CONTROL)]
    sentences += [_stopping(ticket, named.get(BASE)), _winning(ticket, named, tolerance)]
    return " ".join(sentence for sentence in sentences if sentence)


def _recovery(ticket: Result, named: Mapping[str, Result]) -> str:
    base, embed = named.get(BASE), named.get(EMBED_TUNING)
    size = "" if ticket.trainable is None else f" of {ticket.trainable:,} weights"
    scores = [
        f"{name} {number(row.bleu_whole)}" for name, row in ((EMBED_TUNING, embed), ("the base model", base)) if row
    ]
    start = f"Partial tuning of the ticket{size} scores BLEU {number(ticket.bleu_whole)}"
    start += f" ({', '.join(scores)})." if scores else "."
    embed_gain = gain(embed, base, "bleu_whole")
    if embed_gain is None:
        return f"{start} Without scores of the base model and of embed tuning, its share of a gain is unknown."
    if embed_gain <= 0:
        return f"{start} Embed tuning gains nothing over the base model, so there is no gain to recover."
    shares = f"**{percent(ticket.gain_recovered_whole)} of embed tuning's gain** on the whole continuation"
    if ticket.gain_recovered_first_line is not None:
        shares += f" and {percent(ticket.gain_recovered_first_line)} on the first line"
    return f"{start} It recovers {shares}."


def _against(ticket: Result, control: str, named: Mapping[str, Result], differences: Sequence[PairedDifference]) -> str:
    other = named.get(control)
    if other is None or other.bleu_whole is None or ticket.bleu_whole is None:
        return f"There is no {control}: {_WHAT_CONTROLS_TELL[control]} is unknown."
    paired = [d for d in differences if (d.of, d.against, d.metric) == (ticket.name, control, "bleu_whole")]
    value = ticket.bleu_whole - other.bleu_whole
    if paired:
        value, low, high = paired[0].value, paired[0].low, paired[0].high
        clear, evidence = low > 0 or high < 0, f"paired interval {_interval((low, high))}"
    elif ticket.bleu_whole_interval is not None and other.bleu_whole_interval is not None:
        mine, theirs = ticket.bleu_whole_interval, other.bleu_whole_interval
        clear = mine[0] > theirs[1] or theirs[0] > mine[1]
        overlap = "do not overlap" if clear else "overlap"
        evidence = f"the intervals {_interval(mine)} and {_interval(theirs)} {overlap}"
    else:
        return f"Its distance to the {control} is {value:+.1f} BLEU; without an interval that may be chance."
    if not clear:
        return f"It does **not clearly differ** from the {control} ({value:+.1f} BLEU; {evidence})."
    outcome = f"It **beats** the {control}" if value > 0 else f"It **loses** to the {control}"
    return f"{outcome} by {abs(value):.1f} BLEU ({evidence})."


def _stopping(ticket: Result, base: Result | None) -> str:
    whole, first = gain(ticket, base, "bleu_whole"), gain(ticket, base, "bleu_first_line")
    if whole is None or first is None or whole <= 0:
        return ""
    stopping = min(1.0, max(0.0, 1 - first / whole))
    return (
        f"Of its gain of {number(whole)} BLEU, {number(first)} remain when only the first line counts: "
        f"about {percent(stopping)} of the gain is stopping in the right place; the rest is what the first line says."
    )


def _winning(ticket: Result, named: Mapping[str, Result], tolerance: float) -> str:
    full, gained = named.get(FULL_TUNING), gain(ticket, named.get(BASE), "bleu_whole")
    if full is None or full.bleu_whole is None or ticket.bleu_whole is None:
        return "There is no full tuning to match, so it cannot be called a winning ticket."
    if gained is not None and gained <= 0:
        return "It gains nothing over the base model, so it is **not** a winning ticket."
    below = full.bleu_whole - ticket.bleu_whole
    where = f"{number(below)} below" if below > 0 else f"{number(-below)} above"
    name = "is" if below <= tolerance else "is **not**"
    return (
        f"At {where} full tuning ({number(full.bleu_whole)}), it {name} a winning ticket within a tolerance of "
        f"{number(tolerance)} BLEU."
    )


def _interval(bounds: tuple[float, float]) -> str:
    return f"[{bounds[0]:.1f}, {bounds[1]:.1f}]"
