"""The process in which atheris runs one target, with libFuzzer's options.

    python -m tests.fuzz.fuzzing ticket CORPUS -max_total_time=60

A target is a module `tests.fuzz.fuzz_<name>` with `read(data, folder)`, which raises what is not to be raised, and
`finish(data, folder)`, which brings a mutated input into a form in which more of it is read.
"""

import importlib
import random
import sys
import tempfile
from pathlib import Path

import atheris

_READERS = [f"ks_lottery.{room}" for room in ("checkpoints", "units", "ticket", "adapter.importers", "adapter.config")]


def main() -> None:
    """Run the target of the command line until its options end it; ends the process."""
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=_READERS):
        target = importlib.import_module(f"tests.fuzz.fuzz_{name}")
    from tests.fuzz.mutator import mutate

    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))

    def change(data: bytes, max_size: int, seed: int) -> bytes:
        changed = mutate(data, max_size, seed, atheris.Mutate)
        if random.Random(seed).random() < 0.5:
            finished: bytes = target.finish(changed, folder)
            return finished if len(finished) <= max_size else changed
        return changed

    atheris.Setup(sys.argv, lambda data: target.read(data, folder) and None, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
