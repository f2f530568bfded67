"""What the shell offers, asked as the shell asks."""

import os
import subprocess
import sys

import pytest

from ks_lottery.cli.app import app
from ks_lottery.cli.completion import carrier_names, correction_names, finder_names, unit_names
from ks_lottery.finders.base import FINDERS
from ks_lottery.stats.multiplicity import CORRECTIONS
from ks_lottery.units.granularity import GRANULARITIES


def offered(*words: str) -> list[str]:
    """What bash is told for the last of these words."""
    environment = os.environ | {
        "_KS_LOTTERY_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)
    }  # fmt: skip
    command = [sys.executable, "-m", "ks_lottery.cli"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.stderr == ""
    return result.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ks-lottery", "f"], ["find", "finders"]),
        (["ks-lottery", "find", "a", "b", "--finder", "m"], ["magnitude", "moments", "movement"]),
        (["ks-lottery", "diff", "a", "b", "--units", "token"], ["token_rows"]),
        (["ks-lottery", "find", "a", "b", "--top"], ["--top-k"]),
        (["ks-lottery", "find", "a", "b", "--correction", "b"], ["bonferroni", "bh"]),
        (["ks-lottery", "export", "a", "--to", "lora"], ["lora", "lora-embedding"]),
        (["ks-lottery", "bench-planted", "--finder", "kss"], []),
    ],
)
def test_bash(words: list[str], expected: list[str]) -> None:
    assert offered(*words) == expected


def test_nothing_is_forgotten() -> None:
    assert [name for name, _ in finder_names("")] == list(FINDERS.names())
    assert [name for name, _ in unit_names("")] == list(GRANULARITIES.names())
    assert [name for name, _ in correction_names("")] == list(CORRECTIONS)
    from ks_lottery.adapter.export.carrier import CARRIERS

    assert {name.replace("-", "_") for name in carrier_names("")} == {"auto", *CARRIERS.names()}
    assert all(says for _, says in finder_names(""))


def test_typer_installs_it() -> None:
    import typer

    program = typer.main.get_command(app)
    assert {"install_completion", "show_completion"} <= {param.name for param in program.params}
