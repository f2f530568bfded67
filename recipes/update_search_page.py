"""The page of the study: what was measured, who is nearer to the whole update, and what finding cost."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from scipy.stats import t as student
from update_search_scores import lines_of

from ks_lottery.checkpoints.writer import atomic_file, write_json
from ks_lottery.errors import DataError
from ks_lottery.report.nearness import nearness_picture
from ks_lottery.ticket.markdown import MISSING, number, table

COMMAND = "python recipes/update_search.py --out runs/update-search"
SEARCH = "concrete"
NAMES = {"magnitude": "largest move", "ks": "KS", "fisher": "Fisher", "random": "random", SEARCH: SEARCH}
UNITS = {"weights": "weights", "neurons": "neurons", "token_rows": "token rows"}
Cells = Sequence[Mapping[str, Any]]


class Ratio(NamedTuple):
    """A rival's divergence over that of the search, on the same seeds.

    Attributes:
        mean: geometric.
        low: of the 95 % interval of a paired t on logarithms; None with fewer than 3 seeds.
        high: of the same.
        wins: seeds on which the search is nearer.
        seeds: that both have.
    """

    mean: float
    low: float | None
    high: float | None
    wins: int
    seeds: int

    @property
    def verdict(self) -> str:
        """What the interval says of the search."""
        if self.low is None or self.high is None or self.low <= 1 <= self.high:
            return "undecided"
        return "nearer" if self.low > 1 else "farther"


def ratio_of(rival: Mapping[int, float], search: Mapping[int, float]) -> Ratio:
    """Compare divergences by seed.

    Raises:
        DataError: if they have no seed in common.
    """
    seeds = sorted(set(rival) & set(search))
    if not seeds:
        raise DataError("Two finders are compared on the seeds that both have, but there is none. Run more cells.")
    logs = [math.log(rival[seed] / search[seed]) for seed in seeds]
    mean, low, high = fmean(logs), None, None
    if len(logs) > 2:
        half = float(student.ppf(0.975, len(logs) - 1)) * stdev(logs) / math.sqrt(len(logs))
        low, high = math.exp(mean - half), math.exp(mean + half)
    return Ratio(math.exp(mean), low, high, sum(value > 0 for value in logs), len(seeds))


def render(study: Path, folder: Path) -> Path:
    """Write results.json, page.md and nearness.png.

    Args:
        study: with `setting.json` and `cells.jsonl`.
        folder: where to.

    Returns:
        the page.

    Raises:
        DataError: if the study has no cell of the search and a rival.
    """
    cells = lines_of(study / "cells.jsonl")
    ratios = all_ratios(cells)
    if not ratios:
        raise DataError(f"{str(study)!r} has no ticket of the search beside one of a rival. Run the study first.")
    setting = json.loads((study / "setting.json").read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    against = [
        {"units": units, "density": density, "rival": rival, **ratio._asdict(), "verdict": ratio.verdict}
        for (units, density, rival), ratio in ratios.items()
    ]
    write_json(folder / "results.json", {"setting": setting, "against": against, "cells": cells})
    with atomic_file(folder / "nearness.png") as temporary:
        temporary.write_bytes(_picture(cells))
    with atomic_file(folder / "page.md") as temporary:
        temporary.write_text(_page(setting, cells, ratios), encoding="utf-8")
    return folder / "page.md"


def all_ratios(cells: Cells) -> dict[tuple[str, float, str], Ratio]:
    """(units, density, rival) to the comparison with the search, where both were run."""
    found = {}
    for units, density in dict.fromkeys((cell["units"], cell["density"]) for cell in cells):
        here = [cell for cell in cells if (cell["units"], cell["density"]) == (units, density)]
        by_finder = {name: {cell["seed"]: cell["kl"] for cell in here if cell["finder"] == name} for name in NAMES}
        for rival in NAMES:
            if rival != SEARCH and set(by_finder[rival]) & set(by_finder[SEARCH]):
                found[units, density, rival] = ratio_of(by_finder[rival], by_finder[SEARCH])
    return found


def conclusions(ratios: Mapping[tuple[str, float, str], Ratio]) -> list[str]:
    """One sentence for each rival and kind of unit: at which densities the search is nearer, and at which it is not."""
    sentences = []
    for units, rival in dict.fromkeys((units, rival) for units, _, rival in ratios):
        parts = []
        for verdict in ("nearer", "undecided", "farther"):
            here = {
                density: ratio for (one, density, other), ratio in ratios.items()
                if (one, other) == (units, rival) and ratio.verdict == verdict
            }  # fmt: skip
            if here:
                shown = ", ".join(f"{100 * density:g} % ({_times(ratio)})" for density, ratio in here.items())
                parts.append(f"{verdict} at {shown}")
        sentences.append(f"**{UNITS[units]}, against {NAMES[rival]}**: {'; '.join(parts)}.")
    return sentences


def _times(ratio: Ratio) -> str:
    interval = "" if ratio.low is None else f" [{ratio.low:.3g}, {ratio.high:.3g}]"
    return f"{ratio.mean:.3g}x{interval}, {ratio.wins} of {ratio.seeds}"


def _page(setting: Mapping[str, Any], cells: Cells, ratios: Mapping[tuple[str, float, str], Ratio]) -> str:
    seeds = sorted({cell["seed"] for cell in cells})
    parts = [
        "# Concrete search for a fine-tuning ticket",
        f"Made by:\n\n```\n{COMMAND}\n{COMMAND} --render docs/results/update-search\n```",
        f"English-German, embedded model; {setting['dense_steps']} steps of {setting['batch_size']} pairs tune it "
        f"densely, once for each kind of unit and seed. Finders see the same {setting['batches']} batches of "
        f"{setting['batch_size']} training pairs; a search takes {setting['search_steps']} steps, one batch each. Then "
        f"f(θ₀ + m·δ) is scored against f(θ₀ + δ) on {setting['test_sentences']} held-out sentences, with no training "
        f"after the choice. Seeds: {', '.join(map(str, seeds))}. Every finder chooses among the units that moved.",
        "![Divergence against density](nearness.png)",
        "## Is the search nearer to the whole update?",
        "Divergence KL(ticket ‖ whole update) of the rival over that of the search, geometric mean, with the 95 % "
        "interval of a paired t over seeds, and the number of seeds on which the search is nearer. Above 1 the search "
        "is nearer; *undecided* where the interval holds 1, or there are fewer than 3 seeds.",
        "\n".join(f"- {sentence}" for sentence in conclusions(ratios)),
        "## Scores",
        _scores(cells),
        "*Agreement*: share of held-out response tokens whose most likely token is that of the whole update. "
        "*Accuracy* and *loss*: by the true tokens. Means over seeds.",
        "## Translations",
        _translations(cells),
        "## What finding costs",
        _costs(cells),
        "A search has to be made again for each density; the others score once for all. Largest move and KS compare "
        "the two ends of the dense tuning, whose cost is not counted: its result is what is to be reduced. Seconds are "
        "of one core. *Held*: mean probability that a search's logits give a unit, over the density; it aims at 1.1.",
    ]
    return "\n\n".join(parts) + "\n"


def _mean(cells: Cells, key: str) -> float | None:
    values = [cell[key] for cell in cells if key in cell]
    return fmean(values) if values else None


def _rows(cells: Cells) -> list[tuple[str, str, float | None, Cells]]:
    """(units, finder, density, its cells), references first."""
    keys = dict.fromkeys((cell["units"], cell["density"], cell["finder"]) for cell in cells)
    rows: list[tuple[str, str, float | None, Cells]] = []
    for units, density, finder in sorted(keys, key=lambda key: (list(UNITS).index(key[0]), key[1] or 0)):
        here = [cell for cell in cells if (cell["units"], cell["density"], cell["finder"]) == (units, density, finder)]
        rows.append((units, finder, density, here))
    return rows


def _named(units: str, finder: str, density: float | None) -> list[str]:
    names = {"base": "nothing of it", "dense": "the whole update", **NAMES}
    return [UNITS[units], names[finder], MISSING if density is None else f"{100 * density:g} %"]


def _scores(cells: Cells) -> str:
    header = ["units", "finder", "density", "seeds", "KL", "agreement, %", "accuracy, %", "loss"]
    rows = [
        [
            *_named(units, finder, density), str(len(here)), number(_mean(here, "kl"), 4),
            *(number(100 * (_mean(here, key) or 0.0)) for key in ("agreement", "accuracy")),
            number(_mean(here, "loss"), 3),
        ]
        for units, finder, density, here in _rows(cells)
    ]  # fmt: skip
    return table(header, rows, left=3)


def _translations(cells: Cells) -> str:
    header = ["units", "finder", "density", "seeds", "BLEU, whole", "BLEU, first line", "stops, %"]
    rows = [
        [
            *_named(units, finder, density), str(len(here)),
            *(number(_mean(here, key)) for key in ("bleu_whole", "bleu_first_line", "stop_rate")),
        ]
        for units, finder, density, here in _rows([cell for cell in cells if "bleu_whole" in cell])
    ]  # fmt: skip
    return table(header, rows, left=3)


def _costs(cells: Cells) -> str:
    header = ["units", "finder", "examples forward", "examples backward", "seconds", "held"]
    rows = []
    for units, finder in dict.fromkeys((cell["units"], cell["finder"]) for cell in cells if "seconds" in cell):
        here = [cell for cell in cells if (cell["units"], cell["finder"]) == (units, finder)]
        cost = [number(_mean(here, key), 0) for key in ("forward", "backward")]
        rows.append(
            [UNITS[units], NAMES[finder], *cost, number(_mean(here, "seconds")), number(_mean(here, "held"), 2)]
        )
    return table(header, rows, left=2)


def _picture(cells: Cells) -> bytes:
    panels: dict[str, dict[str, dict[float, list[float]]]] = {}
    nothing: dict[str, list[float]] = {}
    for cell in cells:
        title = UNITS[cell["units"]]
        if cell["finder"] == "base":
            nothing.setdefault(title, []).append(cell["kl"])
        elif cell["density"] is not None:
            line = panels.setdefault(title, {}).setdefault(NAMES[cell["finder"]], {})
            line.setdefault(cell["density"], []).append(cell["kl"])
    return nearness_picture(
        panels, {title: fmean(values) for title, values in nothing.items()}, "KL to the whole update, nats a token"
    )
