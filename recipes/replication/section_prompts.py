"""Prompts that no method was tuned on, and the part of the text in which tuned rows act."""

from pathlib import Path

import numpy as np

from ks_lottery.ticket.markdown import MISSING, table
from replication.means import Means, shown
from replication.parts import PARAPHRASED, SPANNED
from replication.plan import Plan
from replication.spans import SPANS


def paraphrase_section(plan: Plan, folder: Path) -> str:
    """What is left of the gain when the instruction is worded otherwise."""
    del folder
    means, setting, direction = Means(plan.lab), plan.setting, plan.setting.tuned_on
    rows, left = [], {}
    for name in PARAPHRASED:
        cells = [plan.methods[name].title, shown(means.mean(direction, name, "bleu_whole"))]
        for prompt in setting.paraphrases:
            other = means.mean(direction, name, "bleu_whole", f"@{prompt}")
            first = means.mean(direction, name, "bleu_first_line", f"@{prompt}")
            gain, own = (
                means.gain(direction, name, "bleu_whole", f"@{prompt}"),
                means.gain(direction, name, "bleu_whole"),
            )
            share = MISSING
            if gain is not None and own is not None and own >= 1 and name != "base":
                left[name, prompt] = gain / own
                share = f"{gain / own:.0%}"
            cells += [shown(other), shown(first), share]
        if any(cell != MISSING for cell in cells[2:]):
            rows.append(cells)
    if not rows:
        return "## Another wording of the prompt\n\nNot run yet."
    wordings = "; ".join(f"*{name}*: `{text.strip()!r}`" for name, text in setting.paraphrases.items())
    said = [
        f"Models tuned on the study's prompt in en-{direction}, tested on two other wordings ({wordings}), whose gains "
        "are over the base model on the same wording. *Left* is that gain over the gain on the study's prompt.",
    ]
    known = {name for name, _ in left}
    if {"ks", "lora-8"} <= known:
        average = {name: np.mean([share for (method, _), share in left.items() if method == name]) for name in known}
        numbers = ", ".join(f"{plan.methods[name].title} {share:.0%}" for name, share in sorted(average.items()))
        said.append(
            f"Left on average: {numbers}. Rows that belong to one wording teach that wording; what is left shows how "
            "much of a method's gain is about the task."
        )
    header = ["run", "its own prompt", *(f"{prompt}: {what}" for prompt in setting.paraphrases
                                         for what in ("whole", "first line", "left"))]  # fmt: skip
    return "\n\n".join(["## Another wording of the prompt", *said, table(header, rows)])


def span_section(plan: Plan, folder: Path) -> str:
    """What is left of the gain when tuned rows act in one part of the text only."""
    del folder
    means, rows, sums = Means(plan.lab), [], dict.fromkeys(SPANS, 0.0)
    for direction in plan.setting.full_directions:
        for name in SPANNED:
            everywhere = means.gain(direction, name, "bleu_whole")
            found = {span: means.span_share(direction, name, span) for span in SPANS}
            shares = {span: share for span, share in found.items() if share is not None}
            if everywhere is None or len(shares) < len(SPANS):
                continue
            firsts = [means.values(direction, f"{name}/{span}", "bleu_first_line", "spans") for span in SPANS]
            rows.append([f"{plan.methods[name].title}, en-{direction}", f"{everywhere:+.1f}",
                         *(f"{share:.2f}" for share in shares.values()),
                         *(f"{np.mean(values):.1f}" for values in firsts)])  # fmt: skip
            if name == "ks":
                sums = {span: sums[span] + share for span, share in shares.items()}
    if not rows:
        return "## Where the rows act\n\nNot run yet."
    said = (
        "The tuned rows serve in one span only, the pretrained ones elsewhere: in the instruction (all of the prompt "
        "but the sentence), in the source sentence, or in the translation as it is written. Shares of the gain of "
        "BLEU, whole text, over acting everywhere; they need not add up to 1. In the replication with LLaMA-7B they "
        "are 1.00, -0.00 and 0.05."
    )
    best = max(sums, key=lambda span: sums[span])
    if any(sums.values()):
        said += (
            f" **The KS rows act in the {best}** here, most of all; where the first line scores far above the share of "
            "the whole text, the rows translate there and do not stop."
        )
    header = ["run", "gain everywhere", *(f"{span} only" for span in SPANS), *(f"first line, {span}" for span in SPANS)]
    return "\n\n".join(["## Where the rows act", said, table(header, rows)])
