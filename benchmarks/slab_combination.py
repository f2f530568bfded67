"""How should the KS test of a unit that consists of several slabs be combined? Power and false alarms of four ways.

    python benchmarks/slab_combination.py --output docs/benchmarks/slab-combination.json

A unit is an attention head with four slabs (q, k, v rows and o columns) whose values have different scales. *Two seeds*
draws before and after independently, as two initialisations: a level-alpha test rejects alpha of the units. *Paired
noise* moves every value a little, as training does to weights that do not matter. The other cases shift the
distribution of the planted units in one, two or all four slabs, in four strengths. Power is the share of planted units
found at alpha = 0.05 after Bonferroni over all units; in brackets the share of the other units that is found.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.stats import chi2, norm

from ks_lottery.checkpoints.writer import write_json
from ks_lottery.stats.kolmogorov import two_sample_statistic
from ks_lottery.stats.pvalues import log_p_values

SCALES = np.array([0.02, 0.03, 0.05, 0.01])  # of q, k, v and o values
UNITS, PLANTED, ALPHA = 64, 8, 0.05
STRENGTHS = (1.5, 3.0, 6.0, 12.0)  # times 1 / sqrt(values); power is the mean over them

Slabs = np.ndarray  # [slabs, units, values]


def log_p_of_slabs(before: Slabs, after: Slabs) -> np.ndarray:
    """[units, slabs] log p of each slab on its own."""
    n = before.shape[2]
    return np.stack([log_p_values(two_sample_statistic(a, b), n) for a, b in zip(before, after, strict=True)], axis=1)


def pooled(before: Slabs, after: Slabs) -> np.ndarray:
    """One test of all values of a unit, each slab divided by its standard deviation before, over all units."""
    scale = before.std(axis=(1, 2), keepdims=True)
    sides = [np.ascontiguousarray((x / scale).transpose(1, 0, 2).reshape(x.shape[1], -1)) for x in (before, after)]
    return log_p_values(two_sample_statistic(*sides), sides[0].shape[1])


def largest(before: Slabs, after: Slabs) -> np.ndarray:
    """The smallest p of the slabs, corrected by Sidak for the number of slabs."""
    log_p = log_p_of_slabs(before, after)
    return np.log(-np.expm1(log_p.shape[1] * np.log1p(-np.exp(np.minimum(log_p.min(axis=1), -1e-12)))) + 1e-300)


def fisher(before: Slabs, after: Slabs) -> np.ndarray:
    """Fisher: -2 sum of log p against chi2 with two degrees of freedom a slab."""
    log_p = log_p_of_slabs(before, after)
    return chi2.logsf(-2 * log_p.sum(axis=1), 2 * log_p.shape[1])


def stouffer(before: Slabs, after: Slabs) -> np.ndarray:
    """Stouffer: the sum of the normal quantiles."""
    log_p = np.clip(log_p_of_slabs(before, after), -700, -1e-9)
    return norm.logsf(norm.isf(np.exp(log_p)).sum(axis=1) / np.sqrt(log_p.shape[1]))


WAYS: dict[str, Callable[[Slabs, Slabs], np.ndarray]] = {
    "pooled": pooled, "smallest p": largest, "Fisher": fisher, "Stouffer": stouffer,
}  # fmt: skip


def drawn(generator: np.random.Generator, values: int) -> Slabs:
    """Weights as pretraining leaves them: heavy-tailed, another scale in each slab."""
    return (SCALES[:, None, None] * generator.standard_t(6, size=(4, UNITS, values))).astype(np.float32)


def shifted(before: Slabs, kind: str, slabs: slice, size: float, generator: np.random.Generator) -> Slabs:
    """Every value moves a little; those of the planted units also shift."""
    scale = SCALES[:, None, None]
    after = before + 0.02 * scale * generator.standard_normal(before.shape)
    part = (slabs, slice(PLANTED))
    noise = generator.standard_normal(after[part].shape)
    if kind == "wider":
        after[part] *= 1 + size
    elif kind == "mean":
        after[part] += size * scale[slabs]
    elif kind == "noisier":
        after[part] += 3 * size**0.5 * scale[slabs] * noise
    else:  # sparse: some of the values move far, to one side
        after[part] += 4 * scale[slabs] * (generator.random(noise.shape) < size)
    return after.astype(np.float32)


def cases(generator: np.random.Generator, values: int) -> Iterator[tuple[str, Slabs, Slabs, bool]]:
    """(name, before, after, whether some units are planted)."""
    before = drawn(generator, values)
    yield "two seeds", before, drawn(generator, values), False
    yield "paired noise", before, shifted(before, "mean", slice(0), 0.0, generator), False
    for kind in ("wider", "mean", "noisier", "sparse"):
        for where, slabs in (("q", slice(1)), ("q and k", slice(2)), ("all", slice(4))):
            for strength in STRENGTHS:
                size = strength / values**0.5
                yield f"{kind}, {where}", before, shifted(before, kind, slabs, size, generator), True


def main() -> None:
    """Print the table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--replicates", type=int, default=40)
    parser.add_argument(
        "--values", type=int, nargs="+", default=[768, 3072, 16384], help="values of one slab of a unit"
    )
    options = parser.parse_args()
    counts: dict[tuple[int, str, str], list[list[float]]] = {}
    for values in options.values:
        for replicate in range(options.replicates):
            generator = np.random.default_rng([values, replicate])
            for case, before, after, planted in cases(generator, values):
                for way, test in WAYS.items():
                    log_p = test(before, after)
                    level = ALPHA if case == "two seeds" else ALPHA / UNITS
                    found = log_p < np.log(level)
                    rest = found[PLANTED:] if planted else found
                    power = found[:PLANTED].mean() if planted else np.nan
                    counts.setdefault((values, case, way), []).append([power, rest.mean()])
    means = {key: np.mean(pairs, axis=0) for key, pairs in counts.items()}
    rows = [
        {
            "values_per_slab": values,
            "case": case,
            "way": way,
            "power": None if np.isnan(power) else float(power),
            "found_elsewhere": float(rest),
        }
        for (values, case, way), (power, rest) in means.items()
    ]
    write_json(options.output, {"units": UNITS, "planted": PLANTED, "replicates": options.replicates, "rows": rows})
    print(f"| values of a slab | case | {' | '.join(WAYS)} |\n| --: | :-- |{' --: |' * len(WAYS)}")
    for values, case in dict.fromkeys(key[:2] for key in counts):
        cells = []
        for way in WAYS:
            power, rest = means[values, case, way]
            cells.append(f"{100 * rest:.1f} %" if np.isnan(power) else f"{100 * power:.1f} % ({100 * rest:.1f} %)")
        print(f"| {values} | {case} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
