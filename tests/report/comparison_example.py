"""A comparison with made-up scores: six finders with their controls, two tasks, three densities, two replicates."""

from itertools import combinations, product
from typing import Any

import numpy as np

from ks_lottery.evaluation.record import CellCost, Record

WORTH = {"ks": 0.09, "magnitude": 0.10, "snip": 0.04, "fisher": 0.07, "rounds of magnitude": 0.11, "fake": 0.0}
PASSES = {"ks": 900, "magnitude": 900, "snip": 64, "fisher": 640, "rounds of magnitude": 5400, "fake": 0}
LEVELS = {"banking": 0.70, "reviews": 0.82}
DENSITIES = (0.25, 0.05, 0.01)
REPLICATES = (0, 1)
FAILED = "RuntimeError: derivative for | is not\nimplemented"


def record(method: str, score: float | None, **options: Any) -> Record:
    """A cell; found on its own task, at density 0.05, unless said otherwise."""
    given: dict[str, Any] = {
        "kind": "update", "units": "heads", "task": "banking", "density": 0.05, "replicate": 0, "role": "finder"
    }  # fmt: skip
    given |= options
    given.setdefault("found_on", given["task"])
    name = "/".join(str(given[field]) for field in ("kind", "units", "task", "found_on", "density", "replicate"))
    return Record(cell=f"{method}/{name}", method=method, score=score, **given)


def example_records(units: str = "heads", kind: str = "update") -> list[Record]:
    generator = np.random.default_rng(0)
    records = []

    def add(method: str, mean: float, density: float | None, cost: int = 0, **options: Any) -> None:
        finding = CellCost(forward=cost, backward=cost, seconds=cost / 40)
        training = CellCost(forward=600, backward=600, seconds=12.3)
        size = {
            "realised": None if density is None else density * 1.02,
            "trainable": int(1e5 * (density or 1)),
            "ticket_bytes": int(4e5 * (density or 0)),
        }
        score = float(mean + 0.006 * generator.standard_normal())
        options |= size | {"kind": kind, "units": units, "density": density, "finding": finding, "training": training}
        records.append(record(method, score, **options))

    for (task, level), replicate in product(LEVELS.items(), REPLICATES):
        here = {"task": task, "replicate": replicate}
        add("full tuning", level + 0.13, None, role="reference", **here)
        add("no tuning", level - 0.04, None, role="reference", found_on="", **here)
        for density in DENSITIES:
            base = level + 0.02 * float(np.log10(100 * density))
            add("random", base, density, role="control", control="random", found_on="", **here)
            for method, worth in WORTH.items():
                owned = {"role": "control", "of": method, **here}
                add(method, base + worth, density, PASSES[method], **here)
                add(f"{method} shuffled", base + worth / 4, density, control="shuffled", **owned)
                add(f"{method} inverted", base - worth / 2, density, control="inverted", **owned)
        other = next(name for name in LEVELS if name != task)
        for method in ("ks", "magnitude"):
            add(method, level + 0.04, 0.05, found_on=other, **here)
    records.append(record("grasp", None, kind=kind, units=units, replicate=1, error=FAILED))
    return records


def example_overlaps(units: str = "heads", kind: str = "update") -> list[dict[str, Any]]:
    overlaps = []
    runs = [(method, replicate) for method in WORTH for replicate in REPLICATES]
    for task, density, ((first, one), (second, other)) in product(LEVELS, DENSITIES, combinations(runs, 2)):
        shared = 0.8 if first == second else min(WORTH[first], WORTH[second]) * 6
        names = {"first": first, "second": second, "first_replicate": one, "second_replicate": other}
        overlap = {"jaccard": shared + 0.02 * one, "chance": density / (2 - density)}
        overlaps.append({"units": units, "kind": kind, "task": task, "density": density, **names, **overlap})
    return overlaps
