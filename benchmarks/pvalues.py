"""100,000 p-values of one row length: ours, a table and a gather, beside scipy's exact and asymptotic ones.

    python benchmarks/pvalues.py
    python benchmarks/pvalues.py --quick --output runs/benchmarks

scipy runs on the first ones only; times are per p-value. Before anything is timed ours must equal scipy's exact ones to
1e-10.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from interleaved import Method, interleave
from numpy.typing import NDArray
from result import Table, Target, machine, require_equal, write_result
from scipy.stats import _stats_py, kstwo

from ks_lottery.stats.pvalues import log_p_table

COUNT, LENGTH, SOME = 100_000, 4096, 100
EXACT, LIMIT = "scipy, exact", "the gather alone"
OURS, KEPT = "ours, with making the table", "ours, table at hand"


def main() -> None:
    """Time, print the table and write `pvalues.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=COUNT, help="p-values")
    parser.add_argument("--length", type=int, default=LENGTH, help="values per row")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"), help="folder of the JSON file")
    options = parser.parse_args()
    described = machine()
    count, n = (200, 64) if options.quick else (options.count, options.length)
    print(write_result(options.output, "pvalues", "p-values", [compare(count, n, options.repeats)], described))


def compare(count: int, n: int, repeats: int) -> Table:
    """P-values of `count` statistics, D up to a quarter, for rows of n values."""
    h = np.random.default_rng(0).integers(1, n // 4, size=count)
    some = h[: min(SOME, count)]
    require_equal(EXACT, np.exp(ours(some, n)), exact(some, n), tolerance=1e-10)
    table = log_p_table(n)
    methods = [
        Method(EXACT, lambda: exact(some, n), len(some)),
        Method("scipy, asymptotic", lambda: kstwo.sf(some / n, n // 2), len(some)),
        Method(OURS, lambda _: ours(h, n), count, prepare=log_p_table.cache_clear),
        Method(KEPT, lambda: ours(h, n), count),
        Method(LIMIT, lambda: table[h], count),
    ]
    timings = interleave(methods, repeats)
    return Table(
        f"{count:,} p-values for rows of {n:,} values.",
        "µs/p-value",
        1e6,
        timings,
        EXACT,
        LIMIT,
        [Target(OURS, EXACT, faster=1000).judge(timings)],
        f"{len(some)} p-values equal scipy's exact ones to 1e-10",
    )


def ours(h: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """Logarithms of the p-values, from the table."""
    return log_p_table(n)[h]


def exact(h: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """The p-values by which `ks_2samp(method="exact")` ends, without the sorting before."""
    function: Callable[..., Any] = vars(_stats_py)["_attempt_exact_2kssamp"]
    found = [function(n, n, n, step / n, "two-sided") for step in h]
    if not all(success for success, _, _ in found):
        raise RuntimeError("scipy could not compute one of the p-values.")
    return np.array([p for _, _, p in found])


if __name__ == "__main__":
    main()
