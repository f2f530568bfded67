"""Where the certificate fails: what agreement with embed tuning does not tell, computed from the tests."""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from replication.means import Means
from replication.paired import tested_cell
from replication.plan import Plan
from replication.section_certificate import certify

NEAR = 0.01
"""Agreements that differ by less than this count as alike."""
OTHERS = ("frequency", "count-matched", "newline", "lora-8", "full")


class Point(NamedTuple):
    """A method by its certificate and its score.

    Attributes:
        title: of the method.
        rate: agreement with embed tuning, mean over directions and seeds, 0 to 1.
        bound: the smallest Clopper-Pearson bound.
        by_sentences: the smallest bound by bootstrap over sentences.
        bleu: of whole texts, mean over directions and seeds.
    """

    title: str
    rate: float
    bound: float
    by_sentences: float
    bleu: float


def certificate_limits(plan: Plan, folder: Path) -> str:
    """A list of what the certificate does not tell.

    Args:
        plan: the study.
        folder: not used; every section gets one.

    Returns:
        Markdown; "" without tests of the base model and of embed tuning.
    """
    del folder
    alphas = [f"{alpha:g}" for alpha in sorted(plan.setting.alphas)]
    copies, tickets = [f"transfer-ks-{alpha}" for alpha in alphas], [f"ks-{alpha}" for alpha in alphas]
    points = points_of(plan, ("base", *copies, "transfer-ks", *tickets, "ks", *OTHERS))
    if "base" not in points:
        return ""
    lines = [
        _base(points["base"]), _empty(plan, [*copies, *tickets]),
        _copied([(alpha, points[name]) for alpha, name in zip(alphas, copies, strict=True) if name in points]),
        _without_ticket(points), alike(list(points.values())), crossed(list(points.values())), _bounds(points),
    ]  # fmt: skip
    return "\n".join(["### Where it fails", "", *(f"- {line}" for line in lines if line)])


def points_of(plan: Plan, names: tuple[str, ...]) -> dict[str, Point]:
    """Certificate and score of the methods that have both, in order."""
    means, found = Means(plan.lab), {}
    for name in names:
        certified = certify(plan.lab, name)
        bleu = means.mean(plan.setting.full_directions, name, "bleu_whole")
        if certified is not None and bleu is not None:
            found[name] = Point(plan.methods[name].title, certified.rate, certified.bound, certified.by_sentences, bleu)
    return found


def alike(points: list[Point]) -> str:
    """The two methods of nearly equal agreement whose scores lie farthest apart; "" if no two agree alike."""
    pairs = [pair for pair in combinations(points, 2) if abs(pair[0].rate - pair[1].rate) < NEAR]
    if not pairs:
        return ""
    farthest = max(pairs, key=_gap)
    lower, higher = sorted(farthest, key=lambda one: one.bleu)
    return (
        f"Equal agreement, other scores: {lower.title} ({lower.rate:.1%}) and {higher.title} "
        f"({higher.rate:.1%}) agree alike and score BLEU {lower.bleu:.1f} and {higher.bleu:.1f}, "
        f"{higher.bleu - lower.bleu:.1f} apart; no two others within {NEAR:.0%} lie farther apart."
    )


def crossed(points: list[Point]) -> str:
    """How many pairs of methods agreement puts in another order than BLEU, and the pair with the largest gap."""
    pairs = list(combinations(points, 2))
    against = [pair for pair in pairs if (pair[0].rate - pair[1].rate) * (pair[0].bleu - pair[1].bleu) < 0]
    if not pairs:
        return ""
    if not against:
        return f"Agreement puts all {len(pairs)} pairs of methods here in the order of their BLEU."
    farthest = max(against, key=_gap)
    more, less = sorted(farthest, key=lambda one: -one.rate)
    return (
        f"Agreement puts {len(against)} of {len(pairs)} pairs of methods in another order than BLEU: {more.title} "
        f"agrees more ({more.rate:.1%} against {less.rate:.1%}) and scores "
        f"{less.bleu - more.bleu:.1f} BLEU less than {less.title}. What is certified is nearness to embed tuning."
    )


def _gap(pair: tuple[Point, Point]) -> float:
    return abs(pair[0].bleu - pair[1].bleu)


def _base(base: Point) -> str:
    return (
        f"The untouched base model is certified to agree on at least {base.bound:.1%}, at BLEU "
        f"{base.bleu:.1f}: agreement is counted with the right text given before each token, BLEU on the model's own."
    )


def _empty(plan: Plan, names: list[str]) -> str:
    """In how many tests a rule selects nothing, so that its certificate is the base model's."""
    lab, places = plan.lab, [(name, seed) for name in plan.setting.full_directions for seed in plan.setting.seeds]
    parts = []
    for name in names:
        known = [cell for place in places if (cell := tested_cell(lab, *place, name)) is not None]
        empty = [cell for cell in known if cell.endswith("/base")]
        if empty:
            parts.append(f"{plan.methods[name].title} in {len(empty)} of {len(known)}")
    if not parts:
        return "Every level selects rows in every direction and replicate."
    return f"Where no row passes, the certificate is the base model's: {', '.join(parts)} directions and replicates."


def _copied(levels: list[tuple[str, Point]]) -> str:
    """Whether agreement rises with alpha."""
    if len(levels) < 2:
        return ""
    rates = ", ".join(f"{point.rate:.1%} at {alpha}" for alpha, point in levels)
    values = [point.rate for _, point in levels]
    if values == sorted(values):
        return (
            f"Partial transfer never agrees less at a larger alpha ({rates}). More rows of embed tuning are copied "
            "then, up to all of them: the bound measures how much was copied and needs no test to rise."
        )
    return f"Partial transfer agrees less at some larger alpha ({rates}), although more rows are copied."


def _without_ticket(points: Mapping[str, Point]) -> str:
    """Which methods that know nothing of the ticket agree as much as its rows."""
    if "ks" not in points or not any(name in points for name in OTHERS):
        return ""
    ticket = points["ks"]
    known = [points[name] for name in OTHERS if name in points]
    groups = {
        "agree as much or more": [one for one in known if one.rate >= ticket.rate],
        f"agree at most {NEAR:.0%} less": [one for one in known if ticket.rate - NEAR <= one.rate < ticket.rate],
        "agree less": [one for one in known if one.rate < ticket.rate - NEAR],
    }
    parts = [
        f"{', '.join(f'{one.title} {one.rate:.1%}' for one in members)} {what}"
        for what, members in groups.items()
        if members
    ]
    return f"The KS rows agree on {ticket.rate:.1%}. Of methods that choose no row by KS, {'; '.join(parts)}."


def _bounds(points: Mapping[str, Point]) -> str:
    """In how many methods whole sentences give the lower bound."""
    lower = [one.title for one in points.values() if one.by_sentences < one.bound]
    said = (
        f"Tokens of one sentence depend on each other, which Clopper-Pearson does not know: resampling sentences gives "
        f"the lower worst bound for {len(lower)} of {len(points)} methods"
    )
    widest = max((one.bound - one.by_sentences for one in points.values()), default=0.0)
    return f"{said}, by {widest:.1%} at most." if lower else f"{said}."
