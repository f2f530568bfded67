"""The fuzz targets: their seeds are read, what once crashed them is refused or read, and a short run finds nothing."""

import importlib
import importlib.util
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import fuzz_adapter, fuzz_ticket
from tests.fuzz.mutator import mutate
from tests.fuzz.run import ROOT, TARGETS
from tests.fuzz.seed_corpus import bundle, seeds, unbundle

READERS = {"ticket": fuzz_ticket.read, "adapter": fuzz_adapter.read}
CRASHERS = sorted((Path(__file__).parent / "crashers").glob("*/*"))


def flipped(data: bytes, max_size: int) -> bytes:
    """A stand-in for libFuzzer's own mutation."""
    chance = random.Random(len(data))
    changed = bytearray(data)
    if changed:
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed[:max_size])


def test_there_is_a_reader_for_every_target() -> None:
    assert set(READERS) == set(TARGETS)
    assert {path.parent.name for path in CRASHERS} == set(TARGETS)


@pytest.mark.parametrize(("target", "name"), [(target, name) for target in TARGETS for name in seeds(target)])
def test_every_seed_is_read(target: str, name: str, tmp_path: Path) -> None:
    assert READERS[target](seeds(target)[name], tmp_path) is True


@pytest.mark.parametrize("path", CRASHERS, ids=lambda path: f"{path.parent.name}-{path.name[:20]}")
def test_what_crashed_a_target_is_refused(path: Path, tmp_path: Path) -> None:
    assert READERS[path.parent.name](path.read_bytes(), tmp_path) is False


@pytest.mark.parametrize("target", TARGETS)
def test_mutations_keep_the_form_and_are_refused_or_read(target: str, tmp_path: Path) -> None:
    module = importlib.import_module(f"tests.fuzz.fuzz_{target}")
    read = {True: 0, False: 0}
    for name, seed_input in seeds(target).items():
        for seed in range(60):
            changed = mutate(seed_input, 16_384, seed, flipped)
            assert changed == mutate(seed_input, 16_384, seed, flipped), name
            read[READERS[target](module.finish(changed, tmp_path), tmp_path)] += 1
    assert read[True] > 0
    assert read[False] > 20


def test_a_bundle_comes_apart_as_it_was_made() -> None:
    files = {"config.json": b"{}\n", "model.safetensors": b"\0\n\0"}
    assert unbundle(bundle(files)) == files
    assert unbundle(b"PK no bundle") == {}


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
@pytest.mark.parametrize("target", TARGETS)
def test_a_short_run_finds_nothing_and_keeps_its_corpus(target: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tests" / "fuzz" / "run.py"), "--seconds", "5", "--target", target]
    done = subprocess.run(
        [*command, "--corpus", str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list((tmp_path / target).iterdir())) > len(seeds(target))
    assert list((tmp_path / f"{target}-crashes").iterdir()) == []
