"""What the study shows in a few computed sentences, and what it does not show."""

from collections.abc import Iterator

import numpy as np

from replication.laboratory import Laboratory
from replication.means import LEAST_GAIN, Means
from replication.paired import Paired, paired_difference
from replication.spans import SPANS


def short(lab: Laboratory, titles: dict[str, str]) -> str:
    """The list at the top of the page; only what has finished tests."""
    lines = [*_tickets(lab, titles), *_rule(lab), *_stopping(lab), *_spans(lab), *_frozen(lab), *_beyond(lab, titles)]
    return "\n".join(f"- {line}" for line in lines)


def verdict(one: str, other: str, differences: dict[str, Paired]) -> str:
    """A sentence on a difference, direction by direction, that says so where none is shown.

    Args:
        one: what the difference is of.
        other: what is taken off.
        differences: by direction.
    """
    numbers = "; ".join(f"{direction} {difference}" for direction, difference in differences.items())
    above = [name for name, difference in differences.items() if difference.shown and difference.mean > 0]
    below = [name for name, difference in differences.items() if difference.shown and difference.mean < 0]
    everywhere = " in every direction" if len(differences) > 1 else ""
    if not above and not below:
        said = f"no difference is shown between {one} and {other}"
    elif len(above) == len(differences):
        said = f"{one} score higher than {other}{everywhere}"
    elif len(below) == len(differences):
        said = f"{one} score lower than {other}{everywhere}"
    else:
        parts = [f"higher in {', '.join(above)}"] * bool(above) + [f"lower in {', '.join(below)}"] * bool(below)
        rest = [name for name in differences if name not in (*above, *below)]
        parts += [f"no difference is shown in {', '.join(rest)}"] * bool(rest)
        said = f"{one} against {other}: {'; '.join(parts)}"
    return f"{said} (BLEU {numbers})"


def differences(lab: Laboratory, one: str, other: str, directions: tuple[str, ...] = ()) -> dict[str, Paired]:
    """Paired differences of whole texts, of the directions that have both."""
    found = {name: paired_difference(lab, name, one, other) for name in directions or lab.setting.full_directions}
    return {name: difference for name, difference in found.items() if difference is not None}


def _tickets(lab: Laboratory, titles: dict[str, str]) -> Iterator[str]:
    means, full = Means(lab), lab.setting.full_directions
    ticket, embed, base = (means.mean(full, name, "bleu_whole") for name in ("ks", "embed", "base"))
    if ticket is not None and embed is not None and base is not None and embed - base >= LEAST_GAIN:
        share = (ticket - base) / (embed - base)
        yield (
            f"**{lab.setting.rows} KS rows bring {share:.0%} of embed tuning's gain**: BLEU {ticket:.1f} against "
            f"{embed:.1f}, from {base:.1f}, mean over the directions."
        )
    for rival in ("embed", "frequency", "move", "count-matched", "newline", "lora-1", "full"):
        if found := differences(lab, "ks", rival):
            yield f"{capital(verdict('the KS rows', titles[rival], found))}."


def _rule(lab: Laboratory) -> Iterator[str]:
    means, full = Means(lab), lab.setting.full_directions
    counts = {
        alpha: [round(units) for direction in full for units in means.units(direction, f"ks-{alpha:g}")]
        for alpha in lab.setting.alphas
    }
    if all(counts.values()):
        parts = [f"{min(units)} to {max(units)} at {alpha:g}" for alpha, units in counts.items()]
        yield (
            f"**The rule p < alpha selects {', '.join(parts)}** over directions and seeds. p is a code of the size of "
            "a shift at this row length and learning rate, no error rate: rows before and after are paired."
        )


def _stopping(lab: Laboratory) -> Iterator[str]:
    means, shares = Means(lab), {}
    for direction in lab.setting.full_directions:
        if (share := means.stopping_share(direction, "ks")) is not None:
            shares[direction] = round(share, 2) + 0.0
    if shares:
        numbers = ", ".join(f"{direction} {share:.0%}" for direction, share in shares.items())
        base = means.mean(lab.setting.full_directions, "base", "bleu_first_line")
        assert base is not None
        yield (
            f"**Share of the KS rows' gain that is stopping in the right place: {numbers}.** The untuned model's first "
            f"line scores {base:.1f}: a base model that does not yet follow the instruction has more to learn than to "
            "stop."
        )


def _spans(lab: Laboratory) -> Iterator[str]:
    means, shares = Means(lab), {}
    for span in SPANS:
        found = [means.span_share(direction, "ks", span) for direction in lab.setting.full_directions]
        known = [share for share in found if share is not None]
        if known:
            shares[span] = float(np.mean(known))
    if len(shares) == len(SPANS):
        numbers = ", ".join(f"{share:.0%} in the {span}" for span, share in shares.items())
        yield f"Where the tuned rows act, mean over the directions: {numbers} alone."


def _frozen(lab: Laboratory) -> Iterator[str]:
    if found := differences(lab, "all-others", "embed"):
        one = f"all rows but the {lab.setting.rows} of the ticket"
        yield f"Freezing the winners: {verdict(one, 'embed tuning', found)}."


def _beyond(lab: Laboratory, titles: dict[str, str]) -> Iterator[str]:
    direction = (lab.setting.tuned_on,)
    for name in ("rows-and-norms", "prompt-and-ends", "concrete"):
        for rival in ("ks", "lora-1"):
            if found := differences(lab, name, rival, direction):
                yield f"Beyond the paper: {verdict(titles[name], titles[rival], found)}."


def capital(text: str) -> str:
    """A sentence with a capital first letter."""
    return text[0].upper() + text[1:]
