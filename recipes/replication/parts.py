"""The parts of the study, in the order in which they are made."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ks_lottery.errors import UnknownNameError
from replication.calibration import between_seeds, rounding, tied_heads, weight_decay
from replication.cells import Cell
from replication.counts import count, counts_cell
from replication.plan import Plan
from replication.setting import Setting
from replication.spans import SPANS, span_cell

PARAPHRASED = ("base", "embed", "ks", "frequency", "newline", "lora-8")
SPANNED = ("embed", "ks")
SIZED = ("ks-top-4", "ks-top-50", "ks-top-200")
HEADS = ("heads-ks", "heads-move", "heads-fisher", "heads-random", "layer-ks", "layer-move")
BEYOND = ("prompt-rows", "prompt-and-ends", "concrete", "norms", "newline-and-norms", "few-rows-and-norms",
          "rows-and-norms", "lora-1-qv", "lora-1-one-layer")  # fmt: skip


def plan_study(setting: Setting, folder: Path) -> Plan:
    """All cells of a study.

    Raises:
        UnknownNameError: if a part is unknown.
    """
    plan = Plan(setting, folder)
    for part in setting.parts:
        if part not in PARTS:
            raise UnknownNameError(f"parts: there is no part {part!r}. Available: {', '.join(PARTS)}.")
        PARTS[part](plan)
    plan.ready()
    return plan


def main_table(plan: Plan) -> None:
    """Every method of the main table; the direction and seed of the tries first, then seed by seed."""
    setting = plan.setting
    order = [(direction, seed) for seed in setting.seeds for direction in setting.full_directions]
    order.sort(key=lambda place: (not plan.lab.tried(*place), setting.seeds.index(place[1])))
    _test_all(plan, order, setting.methods)


def brief_table(plan: Plan) -> None:
    """The directions that are only reported beside."""
    order = [(direction, seed) for direction in plan.setting.brief for seed in plan.setting.seeds]
    _test_all(plan, order, plan.setting.brief_methods)


def paraphrased(plan: Plan) -> None:
    """Tests with prompts that no method was tuned on, and probes on them, in the direction of the tries."""
    direction = plan.setting.tuned_on
    for seed in plan.setting.seeds:
        for prompt in plan.setting.paraphrases:
            for name in PARAPHRASED:
                if name != "base" or seed == plan.setting.seeds[0]:
                    plan.tested(direction, seed, name, prompt)
        plan.found(direction, seed, f"ks-on-{next(iter(plan.setting.paraphrases))}")


def spans(plan: Plan) -> None:
    """Rows that act in one part of the text only."""
    for direction, seed in _everywhere(plan):
        for name in SPANNED:
            if name != "ks" and direction != plan.setting.tuned_on:
                continue
            tested = plan.tested(direction, seed, name)
            for span in SPANS:
                config = {"seed": seed, "direction": direction, "method": name, "span": span, **plan.setting.decoding()}
                make = partial(span_cell, plan.lab, direction, seed, name, plan.methods[name], span)
                plan.add(Cell(f"spans/{direction}/{seed}/{name}/{span}", config, (tested,), make))


def crossed(plan: Plan) -> None:
    """Tickets of other directions, of all directions together, and of all seeds together."""
    for direction, seed in _everywhere(plan):
        donors = [f"ks-of-{donor}" for donor in plan.setting.full_directions if donor != direction]
        for name in (*donors, "union", "intersection", "replicated"):
            plan.tested(direction, seed, name)


def sizes(plan: Plan) -> None:
    """Tickets of other sizes."""
    _test_all(plan, _tuned(plan), SIZED)


def beyond(plan: Plan) -> None:
    """Selections that the paper does not have, and small LoRAs beside them."""
    _test_all(plan, _tuned(plan), BEYOND)


def heads(plan: Plan) -> None:
    """Attention heads and layers; their tickets in every direction."""
    _test_all(plan, _tuned(plan), HEADS)
    for direction, seed in _everywhere(plan):
        plan.found(direction, seed, "heads-ks")


def calibration(plan: Plan) -> None:
    """How often the rule rejects where nothing was learnt; and which rows pass at other rates and beta2."""
    setting = plan.setting
    for direction in setting.full_directions:
        needs = tuple(cell for seed in setting.seeds for cell in plan.trained(direction, seed, "embed"))
        for name, make in (("seeds", between_seeds), ("rounding", rounding)):
            _add(plan, f"calibration/{direction}/{name}", needs, partial(make, plan.lab, direction))
        for seed in setting.seeds:
            config = {"seed": seed, "direction": direction, **setting.training()}
            plan.add(Cell(counts_cell(direction, seed), config, (), partial(count, plan.lab, direction, seed)))
    tuned_on = setting.tuned_on
    _add(plan, f"calibration/{tuned_on}/decay", (), partial(weight_decay, plan.lab, tuned_on))
    for seed in setting.seeds:
        needs = (*plan.trained(tuned_on, seed, "embed"), *plan.trained(tuned_on, seed, "full"))
        _add(plan, f"calibration/{tuned_on}/tied-{seed}", needs, partial(tied_heads, plan.lab, tuned_on, seed))
        plan.trained(tuned_on, seed, "embed-beta2-0.999")


def _add(plan: Plan, name: str, needs: tuple[str, ...], make: Callable[[Path], dict[str, Any]]) -> None:
    plan.add(Cell(name, {"seed": list(plan.setting.seeds), **plan.setting.training()}, needs, make))


def _test_all(plan: Plan, places: list[tuple[str, int]], names: tuple[str, ...]) -> None:
    """Methods on directions and seeds; the base model, which has no seed, once."""
    for direction, seed in places:
        for name in names:
            if name != "base" or seed == plan.setting.seeds[0]:
                plan.tested(direction, seed, name)


def _tuned(plan: Plan) -> list[tuple[str, int]]:
    return [(plan.setting.tuned_on, seed) for seed in plan.setting.seeds]


def _everywhere(plan: Plan) -> Iterator[tuple[str, int]]:
    for seed in plan.setting.seeds:
        for direction in plan.setting.full_directions:
            yield direction, seed


PARTS: dict[str, Callable[[Plan], None]] = {
    "main": main_table,
    "calibration": calibration,
    "beyond": beyond,
    "paraphrased": paraphrased,
    "spans": spans,
    "sizes": sizes,
    "heads": heads,
    "crossed": crossed,
    "brief": brief_table,
}
