"""What theory promises about strong tickets beside what is measured: records and pictures for docs/theory.md.

    python recipes/theory.py                          # all of it, minutes on one core
    python recipes/theory.py --only constructions     # one of subset-sum, constructions, universal, attention
    python recipes/theory.py --quick --out runs/theory

Each experiment writes `<name>.json` and its pictures. Every source is drawn from a seed, so a run gives the same
numbers again.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ks_lottery.checkpoints.writer import write_json
from ks_lottery.report.theory_plots import (
    sparse_source_picture,
    subset_sum_picture,
    universal_picture,
    widths_picture,
)
from ks_lottery.theory.bounds import PRODUCTS, UNIFORMS, copied_items, subset_sum_items
from ks_lottery.theory.constructions import Malach, Orseau, Pensia
from ks_lottery.theory.strong_ticket import strong_ticket
from ks_lottery.theory.subset_sum import greedy, solve
from ks_lottery.theory.universal import curve_ticket, monomial_ticket, readout_r2, sine_curve
from ks_lottery.theory.widths import Construction, entry_eps, network_widths, same_sign_units

ERRORS = (1e-2, 1e-3, 1e-4)
PROMISES = ((0.01, 0.1), (0.01, 0.01), (0.001, 0.01), (1e-4, 0.01))
SHAPES = [(6, 4), (2, 6)]
LARGEST = 0.5


def subset_sum(out: Path, quick: bool) -> None:
    """Error of exact and greedy sums against the number of items, and the fewest items that keep a promise."""
    draws, items = (300, range(6, 13)) if quick else (20_000, range(6, 23))
    kinds = {
        name: _sums(np.random.default_rng(factors), factors, draws, items, constant)
        for name, factors, constant in (("products", 2, PRODUCTS), ("uniforms", 1, UNIFORMS))
    }
    write_json(out / "subset-sum.json", {"draws": draws, **kinds})
    (out / "subset-sum.png").write_bytes(subset_sum_picture(kinds["products"]))


def _sums(draw: np.random.Generator, factors: int, draws: int, items: Sequence[int], constant: float) -> dict[str, Any]:
    exact, fast = [], []
    for count in items:
        values = draw.uniform(-1, 1, (factors, draws, count)).prod(axis=0)
        targets = draw.uniform(-1, 1, draws)
        exact.append(np.sort(solve(values, targets).error))
        fast.append(float(np.median(greedy(values, targets).error)))
    medians = [float(np.median(errors)) for errors in exact]
    above = 1 - np.arange(1, draws + 1) / draws
    fewest = []
    for eps, delta in PROMISES:
        enough = [count for count, errors in zip(items, exact, strict=True) if (errors > eps).mean() <= delta]
        rule = subset_sum_items(eps, delta, constant)
        fewest.append({"eps": eps, "delta": delta, "measured": min(enough, default=None), "rule": rule})
    return {
        "items": list(items), "exact": medians, "greedy": fast,
        "reached": [float(errors[above <= errors][0]) for errors in exact],
        "missed": {f"{eps:g}": [float((errors > eps).mean()) for errors in exact] for eps in ERRORS},
        "constant": constant, "fewest": fewest,
        "slope": float(np.polyfit(items, np.log2(medians), 1)[0]),
        "slope_greedy": float(np.polyfit(items, np.log2(fast), 1)[0]),
    }  # fmt: skip


def constructions(out: Path, quick: bool) -> None:
    """Error of three constructions against their width and beside their bounds; sparse sources."""
    draws = 2 if quick else 9
    weights = _network(0, SHAPES)
    asked = [0.3] if quick else [0.5, 0.2, 0.1, 0.05, 0.02]
    record = {
        name: _widths(name, weights, [4, 16] if quick else [4, 8, 16, 32, 64, 128, 512, 2048], asked, draws)
        for name in ("malach", "orseau", "pensia")
    }
    sparse = _sparse_sources([0.5] if quick else [0.3, 0.5, 0.8], draws if quick else 20)
    write_json(
        out / "constructions.json",
        {"shapes": SHAPES, "largest": LARGEST, "draws": draws, "widths": record, "sparse_sources": sparse},
    )
    (out / "widths.png").write_bytes(widths_picture(record))
    (out / "sparse-sources.png").write_bytes(sparse_source_picture(sparse["densities"]))


def _network(seed: int, shapes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """Random matrices of spectral norms up to 1 and weights up to `LARGEST`."""
    draw = np.random.default_rng(seed)
    weights = [draw.uniform(-1, 1, shape) for shape in shapes]
    return [weight / max(np.linalg.norm(weight, 2), np.abs(weight).max() / LARGEST) for weight in weights]


def _widths(
    name: Construction, weights: list[np.ndarray], units: Iterable[int], asked: Sequence[float], draws: int
) -> dict[str, Any]:
    """Errors at given numbers of units per input, and at the widths that the bound asks for, with probability .95."""
    rows: dict[str, Any] = {"widths": [], "median": [], "worst": [], "density": [], "eps": list(asked), "asked": []}
    for count in units:
        if name == "pensia" and count > 2 * 64:
            break
        widths = [columns * count for _, columns in SHAPES]
        tickets = [strong_ticket(weights, _construction(name, 0.02), widths, seed) for seed in range(draws)]
        errors = [ticket.sampled_error() for ticket in tickets]
        rows["widths"].append(widths[0])
        rows["median"].append(float(np.median(errors)))
        rows["worst"].append(max(errors))
        rows["density"].append(float(np.median([ticket.density for ticket in tickets])))
    rows["kept_promise"], rows["worst_asked"] = [], []
    for eps in asked:
        widths = list(network_widths(name, SHAPES, eps, 0.05, LARGEST))
        errors = [
            strong_ticket(weights, _construction(name, eps), widths, seed).sampled_error()
            for seed in range(min(draws, 3) if name == "pensia" else draws)
        ]
        rows["asked"].append(widths[0])
        rows["worst_asked"].append(max(errors))
        rows["kept_promise"].append(float(np.mean(np.array(errors) <= eps)))
    return rows


def _construction(name: str, eps: float) -> Malach | Orseau | Pensia:
    return Orseau(entry_eps(SHAPES, eps), LARGEST) if name == "orseau" else Malach() if name == "malach" else Pensia()


def _sparse_sources(densities: Sequence[float], draws: int) -> dict[str, Any]:
    """Share of Erdos-Renyi sources that hold a 2 x 2 target within .05, where the rule promises four in five."""
    eps, delta, shape = 0.05, 0.2, (2, 2)
    weights = _network(1, [shape])
    items = subset_sum_items(eps, delta / 3 / 8)
    rows: dict[str, Any] = {}
    for density in (*densities, 1.0):
        copies = items if density == 1 else copied_items(items, 8, density**2, delta / 3)
        asked = 2 * same_sign_units(copies, 2, delta / 3)
        narrower = (2 * 2**power for power in range(2, 12 if draws > 2 else 4))
        widths = [*(width for width in narrower if width < asked), asked]
        found = [
            sum(strong_ticket(weights, Pensia(), [width], seed, density).entry_error <= eps for seed in range(draws))
            for width in widths
        ]
        rows[f"{density:g}"] = {"widths": widths, "found": [count / draws for count in found], "asked": asked}
    return {"eps": eps, "delta": delta, "items": items, "draws": draws, "densities": rows}


def universal(out: Path, quick: bool) -> None:
    """A sine, trigonometric sums and polynomials from masked random networks with a linear readout per task."""
    places = np.linspace(0.0, 1.0, 1000)
    wanted = np.sin(2 * np.pi * places)
    seeds = range(1 if quick else 10)
    tickets = [curve_ticket([sine_curve()], 250, seed) for seed in seeds]
    errors = [float(np.abs(ticket.features(places)[:, 0] - wanted).max()) for ticket in tickets]
    straight = float(np.abs(np.interp(places, *sine_curve()) - wanted).max())
    waves = np.stack([function(2 * np.pi * k * places) for k in (1, 2) for function in (np.sin, np.cos)], axis=1)
    draw = np.random.default_rng(0)
    inputs = draw.random((200 if quick else 2000, 2))
    trigonometric = curve_ticket([sine_curve(k, phase) for k in (1, 2) for phase in (0.0, 0.25)], 300, 0)
    monomial = monomial_ticket(3, 2, 0)
    monomials = np.prod(inputs[:, None, :] ** monomial.powers, axis=-1)
    families = {
        "polynomials": _tasks(draw, monomial.features(inputs), inputs, monomials),
        "trigonometric sums": _tasks(draw, trigonometric.features(places), places[:, None], waves),
    }
    record = {
        "sine": {
            "error": errors, "straight_lines": straight, "knots": 21, "width": 250, "size": tickets[0].size,
            "kept": [ticket.kept for ticket in tickets],
        },
        "density": {
            "polynomials": monomial.density, "trigonometric sums": trigonometric.kept / trigonometric.size,
        },
        "r2": families,
    }  # fmt: skip
    write_json(out / "universal.json", record)
    curve = {"inputs": places, "wanted": wanted, "outputs": tickets[0].features(places)[:, 0], "error": errors[0]}
    (out / "universal.png").write_bytes(universal_picture(curve, families))


def _tasks(
    draw: np.random.Generator, features: np.ndarray, inputs: np.ndarray, basis: np.ndarray
) -> list[dict[str, float]]:
    """R2 on five random members of the family that a basis spans."""
    tasks = [basis @ draw.normal(size=basis.shape[1]) for _ in range(5)]
    return [{"ticket": readout_r2(features, task), "inputs": readout_r2(inputs, task)} for task in tasks]


def attention(out: Path, quick: bool) -> None:
    """Strong tickets of attention and of small transformers."""
    from theory_attention import run

    run(out, quick)


EXPERIMENTS: dict[str, Callable[[Path, bool], None]] = {
    "subset-sum": subset_sum, "constructions": constructions, "universal": universal, "attention": attention,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiments that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/results/theory"), help="folder of records and pictures")
    parser.add_argument("--only", choices=EXPERIMENTS, action="append", help="one experiment; may be given again")
    parser.add_argument("--quick", action="store_true", help="few draws, small sizes: shows that all of it runs")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.only or EXPERIMENTS:
        EXPERIMENTS[name](options.out, options.quick)
        print(f"{name}: {options.out}")


if __name__ == "__main__":
    main()
