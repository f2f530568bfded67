"""How often the paper's rule rejects where nothing was learnt, and whether rows that replicate are a better ticket."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ks_lottery.ticket.markdown import MISSING, table
from replication.page_short import differences, verdict
from replication.plan import Plan

_COLUMNS = ("below_0.05", "below_0.5", "below_0.95", "bonferroni", "median_d", "largest_d")
_HEADER = ("what is compared", "rows", "p < 0.05", "p < 0.5", "p < 0.95", "Bonferroni", "median D", "largest D")


def calibration_section(plan: Plan, folder: Path) -> str:
    """Rows that pass between two seeds, by weight decay, by rounding, and in a tied table."""
    del folder
    rows = [*_seeds(plan), *_rounding(plan), *_decay(plan), *_tied(plan)]
    if not rows:
        return "## Calibration\n\nNot run yet."
    said = (
        "Rows of the embedding that pass the rule p < alpha (no correction, and Bonferroni at 0.05) where they moved "
        "for no reason that has to do with the task. A calibrated test of the null hypothesis *nothing moved* would "
        "pass 5 % at 0.05; the test here is paired, its samples are no independent draws, and most shares are near 0 "
        "or near 1: p codes the size of a shift."
    )
    parts = ["## Calibration", said, table(_HEADER, rows)]
    if null := _null(plan):
        parts += ["### Rows that replicate", null]
    return "\n\n".join(parts)


def _seeds(plan: Plan) -> list[list[str]]:
    rows = []
    for direction in plan.setting.full_directions:
        result = plan.lab.cells.known(f"calibration/{direction}/seeds")
        if result is not None:
            rows += [_row(f"two replicates of embed tuning, en-{direction}, seeds {pair}", counts)
                     for pair, counts in result["between"].items()]  # fmt: skip
            rows += [_row(f"base and embed tuning, en-{direction}, seed {seed}", counts)
                     for seed, counts in result["with_base"].items()]  # fmt: skip
    return rows


def _rounding(plan: Plan) -> list[list[str]]:
    result = plan.lab.cells.known(f"calibration/{plan.setting.tuned_on}/rounding")
    found = {} if result is None else result["rounding"]
    return [_row(f"embed tuning, seed {seed}, and the same rounded to bfloat16", counts["alone"])
            for seed, counts in found.items()]  # fmt: skip


def _decay(plan: Plan) -> list[list[str]]:
    result = plan.lab.cells.known(f"calibration/{plan.setting.tuned_on}/decay")
    found = {} if result is None else result["decay"]
    return [_row(f"weight decay alone, sum of rate times decay {total}", counts)
            for total, counts in sorted(found.items(), key=lambda entry: float(entry[0]))]  # fmt: skip


def _tied(plan: Plan) -> list[list[str]]:
    rows = []
    for seed in plan.setting.seeds:
        result = plan.lab.cells.known(f"calibration/{plan.setting.tuned_on}/tied-{seed}")
        if result is not None:
            rows.append(_row(f"tied head, rows that no text used, seed {seed}", result["tied"]))
            rows.append(_row(f"head of its own, rows that no text used, seed {seed}", result["own_head"]))
    return rows


def _row(name: str, counts: Mapping[str, Any]) -> list[str]:
    total = counts["rows"]
    cells = [name, f"{total:,}"]
    for column in _COLUMNS:
        value = counts.get(column)
        if value is None:
            cells.append(MISSING)
        elif column.endswith("_d"):
            cells.append(f"{value:.3f}")
        else:
            cells.append(f"{value:,} ({value / total:.1%})" if total else "0")
    return cells


def _null(plan: Plan) -> str:
    """Whether a row's shift exceeds the distance between two replicates, and what the rows that replicate score."""
    said = []
    for direction in plan.setting.full_directions:
        result = plan.lab.cells.known(f"calibration/{direction}/seeds")
        if result is not None and result["shift_beyond_seeds"]:
            pairs = ", ".join(f"{count:,} of {result['between'][pair]['rows']:,} ({pair})"
                              for pair, count in result["shift_beyond_seeds"].items())  # fmt: skip
            said.append(
                f"en-{direction}: rows whose D to the base exceeds, in both replicates, the D between them: {pairs}."
            )
    found = differences(plan.lab, "replicated", "ks")
    if found:
        shown = [difference.shown and difference.mean > 0 for difference in found.values()]
        earned = sum(shown) * 2 > len(found)
        end = (
            "It earns its place as a selector here."
            if earned
            else "It does not earn its place as a selector, for it costs a probe per replicate; the library has none."
        )
        said.append(
            "The seed-replicate null takes the distance between two replicates for what shift is worth nothing, and "
            f"the selector that follows from it keeps the {plan.setting.rows} rows whose worst rank over the "
            f"replicates is best: {verdict('rows that replicate', 'the KS rows of one probe', found)}. {end}"
        )
    return "\n\n".join(said)
