"""Run the benchmarks one after the other, and put their tables into the page that stands beside their JSON files.

    python benchmarks/run_all.py
    python benchmarks/run_all.py --quick --output runs/benchmarks

With the default output that page is `docs/benchmarks.md`; what stands between its two markers is replaced.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from result import markdown

from ks_lottery.checkpoints.writer import atomic_file

HERE = Path(__file__).resolve().parent
NAMES = ("ks", "pvalues", "diff", "embedding_layer", "step", "prefix", "selection", "saliency", "masks", "rounds")
BEGIN, END = "<!-- begin of the tables, which `make bench` writes -->", "<!-- end of the tables -->"


def main() -> None:
    """Run them; each prints its tables when it is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that they run")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"), help="folder of the JSON files")
    options = parser.parse_args()
    for name in NAMES:
        arguments = ["--output", str(options.output), *(["--quick"] if options.quick else [])]
        subprocess.run([sys.executable, str(HERE / f"{name}.py"), *arguments], check=True)
    page = options.output.with_suffix(".md")
    if page.is_file():
        text = fill(page.read_text(encoding="utf-8"), tables(options.output))
        with atomic_file(page) as temporary:
            temporary.write_text(text, encoding="utf-8")


def tables(folder: Path) -> str:
    """Markdown of the results in a folder, in the order of `NAMES`."""
    files = [file for name in NAMES if (file := folder / f"{name}.json").is_file()]
    return "\n".join(markdown(json.loads(file.read_text(encoding="utf-8"))) for file in files)


def fill(page: str, text: str) -> str:
    """The page with `text` between its markers."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"The page needs the two lines {BEGIN!r} and {END!r}, and the tables go between them.")
    return f"{head}{BEGIN}\n\n{text}\n{END}{tail}"


if __name__ == "__main__":
    main()
