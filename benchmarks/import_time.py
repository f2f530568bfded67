"""What a process pays to import the package, beside a Python that imports nothing and one that imports torch.

    python benchmarks/import_time.py
    python benchmarks/import_time.py --quick --output runs/benchmarks

Every run is a fresh interpreter, so its start is in each figure; the difference to the first line is the import.
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from interleaved import Method, Timing, interleave
from result import Table, machine, write_result

LIMIT, PACKAGE, FIND, PEER = "python alone", "import ks_lottery", "from ks_lottery import find_ticket", "import torch"
AT_MOST = 0.3  # seconds beyond the interpreter, of PACKAGE


def main() -> None:
    """Time, print the table and write `import.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round without torch, to see that it runs")
    parser.add_argument("--repeats", type=int, default=15, help="timed rounds")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"), help="folder of the JSON file")
    options = parser.parse_args()
    described = machine()
    names = (LIMIT, PACKAGE, FIND) if options.quick else (LIMIT, PACKAGE, FIND, PEER)
    timings = interleave([Method(name, starts(name)) for name in names], 1 if options.quick else options.repeats)
    table = Table(
        "Starting an interpreter that imports something.",
        "ms",
        1e3,
        timings,
        peer=LIMIT if options.quick else PEER,
        limit=LIMIT,
        judgements=(),
        checked=f"importing the package loads neither torch nor numpy, {loads_nothing_heavy()} modules in all",
        columns={"beyond python alone": verdicts(timings)},
    )
    print(write_result(options.output, "import", "Import time", [table], described))


def starts(name: str) -> Callable[[], object]:
    """A run of a fresh interpreter."""
    code = "pass" if name == LIMIT else name
    return lambda: subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def verdicts(timings: Mapping[str, Timing]) -> dict[str, str]:
    """Median seconds of each line beyond those of the interpreter in the same round, and the bound of the package."""
    texts = {}
    for name, timing in timings.items():
        if name != LIMIT:
            pairs = zip(timing.seconds, timings[LIMIT].seconds, strict=True)
            beyond = statistics.median(own - alone for own, alone in pairs)
            texts[name] = f"{1e3 * beyond:.0f} ms"
            if name == PACKAGE:
                texts[name] += f" (at most {1e3 * AT_MOST:.0f} ms: {'met' if beyond <= AT_MOST else 'missed'})"
    return texts


def loads_nothing_heavy() -> int:
    """Number of modules that a process has loaded after importing the package; an error if torch or numpy is one."""
    code = "import ks_lottery, sys; assert not {'torch', 'numpy'} & set(sys.modules); print(len(sys.modules))"
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
