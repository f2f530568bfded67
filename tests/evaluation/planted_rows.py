"""Rows of the planted benchmark as they might come out, and a case that takes a moment."""

from ks_lottery.evaluation.comparison.plan import Budget
from ks_lottery.evaluation.planted import PLANTED, PlantedRow
from ks_lottery.evaluation.planted_cases import Case

TINY = Case(
    "tiny", "two heads", {"units": "heads", "count": 2, "size": 0.1, "examples": 32},
    Budget(steps=2, batch_size=8, dense_rates=(1e-2,), probe_rate=1e-2, ticket_rates=(1e-2,), batches=2),
)  # fmt: skip


def example_rows() -> list[PlantedRow]:
    """Two cases, four finders and the planted ticket, two seeds; one finder does not apply, one failed."""
    rows = []
    for case, kind, units, count, total in (
        ("rows", "update", "matrix_rows", 13, 256),
        ("relu", "weight", "weights", 3, 10401),
    ):
        for seed in (0, 1):
            about = {"case": case, "kind": kind, "units": units, "count": count, "total": total, "seed": seed}
            losses = {"untrained": 0.5, "trained": 0.02, "planted_trained": 0.01}
            rows.append(PlantedRow(finder=PLANTED, precision=1.0, recall=1.0, iou=1.0, **about, **losses))
            for finder, looks_at, precision in (
                ("magnitude", "Shift", 1.0),
                ("random", "Evidence", 0.05),
                ("gem_miner", "Frozen", 0.5),
            ):
                precision -= 0.1 * seed * (finder == "gem_miner")
                curve = [
                    (count / total * factor, precision / max(1, factor), min(1, precision * factor))
                    for factor in (0.5, 1, 2)
                ]
                rows.append(
                    PlantedRow(
                        finder=finder,
                        looks_at=looks_at,
                        precision=precision,
                        recall=precision,
                        iou=precision / (2 - precision),
                        seconds=1.5,
                        curve=curve,
                        **about,
                        **losses,
                    )
                )
            rows.append(
                PlantedRow(finder="snip", looks_at="Batches", reason="Finder 'snip' finds weight | tickets.", **about)
            )
        rows.append(
            PlantedRow(finder="imp", looks_at="Runs", reason="ZeroDivisionError: an accident", failed=True, **about)
        )
    return rows
