"""The main table as a picture, with what it shows in sentences, and what is left where the ticket is frozen."""

from pathlib import Path

from ks_lottery.checkpoints.writer import atomic_file
from ks_lottery.ticket.markdown import MISSING, table
from replication.figures_main import Scored, score_picture
from replication.means import LEAST_GAIN, Means, shown, spread
from replication.page_short import capital, differences, verdict
from replication.paired import Paired, paired_difference, score_interval
from replication.plan import Plan

PICTURE = "scores.png"
FROZEN = "all-others"
RIVALS = ("embed", "frequency")


def score_section(plan: Plan, folder: Path) -> str:
    """Every method against embed tuning and against the most frequent rows in sentences, and a picture of all scores.

    Args:
        plan: the study.
        folder: gets the picture.

    Returns:
        Markdown.
    """
    panels = {
        f"en-{direction}": scored
        for direction in plan.setting.full_directions
        if (scored := _scored(plan, direction))
    }  # fmt: skip
    if not panels:
        return "## Every method in one picture\n\nNot run yet."
    with atomic_file(folder / PICTURE) as unfinished:
        unfinished.write_bytes(score_picture(panels, plan.methods["embed"].title))
    said = [sentence for rival in RIVALS if (sentence := against_all(plan, rival))]
    return "\n\n".join([
        "## Every method in one picture",
        "Black: BLEU of whole texts with the interval over test sentences; strokes: the replicates; diamonds: first "
        "lines. Intervals of two methods that overlap do not show that they are equal: the tables compare them pair "
        "by pair. Each comparison stands alone; none is corrected for the number of the others.",
        *said,
        f"![BLEU of every method and direction](results/study/{PICTURE})",
    ])  # fmt: skip


def against_all(plan: Plan, rival: str) -> str:
    """One paragraph: which methods score higher than another in every direction, lower, or neither; "" without any."""
    groups: dict[str, list[str]] = {"higher": [], "lower": [], "none": [], "mixed": []}
    for name in plan.setting.methods:
        found = differences(plan.lab, name, rival)
        if name not in (rival, "base") and len(found) == len(plan.setting.full_directions):
            groups[_group(found)].append(plan.methods[name].title)
    if not any(groups.values()):
        return ""
    ends = {
        "higher": "shown to score higher in every direction",
        "lower": "shown to score lower in every direction",
        "none": "no difference shown in any direction",
        "mixed": "a difference shown in some directions only, or of different signs",
    }
    parts = [f"{ends[group]}: {'; '.join(titles) or 'none'}." for group, titles in groups.items()]
    return f"**Against {plan.methods[rival].title}** (BLEU, whole text). {' '.join(map(capital, parts))}"


def frozen_section(plan: Plan, folder: Path) -> str:
    """What all other rows reach while the ticket keeps its pretrained values.

    Args:
        plan: the study.
        folder: not used; every section gets one.

    Returns:
        Markdown.
    """
    del folder
    lab, means = plan.lab, Means(plan.lab)
    against = {rival: differences(lab, FROZEN, rival) for rival in ("embed", "ks")}
    if not any(against.values()):
        return "## Freezing the winners\n\nNot run yet."
    rows, kept = [], {}
    for direction in plan.setting.full_directions:
        for name in ("base", "embed", "ks", FROZEN):
            whole = means.values(direction, name, "bleu_whole")
            if not whole:
                continue
            share, own, all_rows = None, *(means.gain(direction, one, "bleu_whole") for one in (name, "embed"))
            if name != "base" and own is not None and all_rows is not None and all_rows >= LEAST_GAIN:
                share = own / all_rows
            if name == FROZEN and share is not None:
                kept[direction] = share
            rows.append([
                f"en-{direction}", plan.methods[name].title, spread(whole),
                *(shown(means.mean(direction, name, key)) for key in ("bleu_first_line", "chrf_whole")),
                f"{means.mean(direction, name, 'stop_rate'):.0%}", MISSING if share is None else _share(share),
                *(_cell(plan, direction, rival) if name == FROZEN else MISSING for rival in against),
            ])  # fmt: skip
    header = ["direction", "run", "BLEU whole (replicates)", "BLEU first line", "chrF whole", "stops",
              "of embed tuning's gain", "against embed tuning", "against KS rows"]  # fmt: skip
    return "\n\n".join(["## Freezing the winners", *_frozen_sentences(plan, against, kept), table(header, rows, 2)])


def _frozen_sentences(plan: Plan, against: dict[str, dict[str, Paired]], kept: dict[str, float]) -> list[str]:
    title = f"all rows but the {plan.setting.rows} of the ticket"
    said = [f"{capital(title)} are tuned; those of the ticket keep their pretrained values. What is lost is what the "
            "other rows cannot learn in their place."]  # fmt: skip
    if kept:
        shares = ", ".join(f"en-{direction} {_share(share)}" for direction, share in kept.items())
        said.append(f"**Of embed tuning's gain the other rows reach {shares}.**")
    for rival, found in against.items():
        if found:
            said.append(f"{capital(verdict(title, plan.methods[rival].title, found))}.")
    group = _group(against["embed"]) if against["embed"] else ""
    if group == "lower":
        said.append("The other rows do not make up for the ticket with this training.")
    elif group in ("none", "higher"):
        said.append("A loss without the ticket is not shown in any direction.")
    elif group:
        said.append("A loss without the ticket is shown in some directions only.")
    if sum(getattr(method, "rates", "") == "others" for method in plan.methods.values()) == 1:
        said.append(
            "No run freezes as many other rows, so this does not tell the ticket from other rows of the prompt; and "
            "the runs that freeze try learning rates of their own (see the rates that were tried)."
        )
    return said


def _group(found: dict[str, Paired]) -> str:
    signs = {(1 if one.mean > 0 else -1) if one.shown else 0 for one in found.values()}
    return {1: "higher", -1: "lower", 0: "none"}[signs.pop()] if len(signs) == 1 else "mixed"


def _share(value: float) -> str:
    return f"{round(value, 2) + 0.0:.0%}"


def _cell(plan: Plan, direction: str, rival: str) -> str:
    found = paired_difference(plan.lab, direction, FROZEN, rival)
    if found is None:
        return MISSING
    return f"**{found}**" if found.shown else str(found)


def _scored(plan: Plan, direction: str) -> list[Scored]:
    means, scored = Means(plan.lab), []
    for name in plan.setting.methods:
        whole = score_interval(plan.lab, direction, name)
        first = means.mean(direction, name, "bleu_first_line")
        if whole is not None and first is not None:
            by_seed = tuple(means.values(direction, name, "bleu_whole"))
            scored.append(Scored(plan.methods[name].title, whole, first, by_seed))
    return scored
