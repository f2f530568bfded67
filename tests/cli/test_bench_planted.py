"""`ks-lottery bench-planted`: the table, its folder, and one line about what is wrong."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ks_lottery.evaluation import planted_cases
from ks_lottery.evaluation.comparison import workers
from ks_lottery.finders.base import FINDERS
from tests.cli.conftest import Outcome
from tests.evaluation.comparison.planted import Broken
from tests.evaluation.planted_rows import TINY

Run = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """One case that takes a moment; what the program changes in its environment ends with the test."""
    monkeypatch.setattr(planted_cases, "CASES", (TINY,))
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.delenv(workers.PARENT, raising=False)


def test_the_table_and_the_report(tmp_path: Path, run: Run) -> None:
    asked = ("--finder", "magnitude", "--finder", "snip", "--out", tmp_path)
    outcome = run("bench-planted", *asked, "--workers", 1)
    assert (outcome.code, outcome.err.count("Error")) == (0, 0)
    lines = outcome.out.splitlines()
    assert lines[0] == "[1/3] tiny, seed 0, planted ticket: precision 1.000"
    (header,) = [line.split() for line in lines if "precision  recall" in line]
    assert header == ["case", "seed", "finder", "precision", "recall", "loss", "ratio"]
    assert ["tiny", "0", "snip", "—", "—", "—"] in [line.split() for line in lines]
    assert lines[-2] == "1 of 3 rows have no ticket; the report says why."
    assert lines[-1] == f"report: {tmp_path / 'report' / 'planted.md'}"
    page = (tmp_path / "report" / "planted.md").read_text(encoding="utf-8")
    assert f"ks-lottery bench-planted --out {tmp_path} --finder magnitude --finder snip" in page

    again = run("bench-planted", *asked, "--workers", 1, "--json")
    assert again.code == 0
    rows = json.loads(again.out)
    assert [row["finder"] for row in rows] == ["planted ticket", "magnitude", "snip"]
    assert rows[1]["precision"] in (0.0, 0.5, 1.0)


def test_a_quick_run_is_short(tmp_path: Path, run: Run) -> None:
    outcome = run(
        "bench-planted", "--quick", "--case", "tiny", "--finder", "random", "--out", tmp_path, "--workers", 1
    )  # fmt: skip
    assert outcome.code == 0
    page = (tmp_path / "report" / "planted.md").read_text(encoding="utf-8")
    assert f"ks-lottery bench-planted --out {tmp_path} --quick --case tiny --finder random" in page
    assert "tiny 50" in page


def test_copies_share_the_rows(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[list[str], int]] = []

    def work(command: list[str], count: int) -> None:
        started.append((command, count))
        os.environ[workers.PARENT] = str(os.getppid())
        for index in range(count):
            shard = run(*command[2:], "--shard", f"{index}/{count}")
            assert (shard.code, "report:" in shard.out) == (0, False)
        os.environ.pop(workers.PARENT)

    monkeypatch.setattr(workers, "run_workers", work)
    outcome = run("bench-planted", "--finder", "random", "--out", tmp_path, "--workers", 2, "--seeds", 2)
    assert outcome.code == 0
    assert started[0][0][2:] == ["bench-planted", "--out", str(tmp_path), "--finder", "random", "--seeds", "2"]
    assert len(list((tmp_path / "rows").glob("*.json"))) == 4


def test_accidents_are_told(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FINDERS._entries, "broken", Broken)
    outcome = run("bench-planted", "--finder", "broken", "--out", tmp_path, "--workers", 1)
    assert outcome.code == 0
    assert "1 of 2 rows failed, the first: broken: ZeroDivisionError: an accident in two lines" in outcome.words


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--case", "wings"), "Unknown case 'wings'. Available: tiny."),
        (("--finder", "kss"), "Unknown finder 'kss'. Did you mean 'ks'?"),
        (("--seeds", 0), "--seeds 0: plant at least once."),
        (("--workers", 0), "--workers 0: must be at least 1."),
        (("--shard", "2/2"), "--shard 2/2: must be i/n"),
    ],
)
def test_wrong_usage(tmp_path: Path, run: Run, words: tuple[object, ...], says: str) -> None:
    outcome = run("bench-planted", "--out", tmp_path, *words)
    assert outcome.code == 2
    assert says in outcome.words
