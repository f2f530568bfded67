"""Exit codes, messages, help: what holds for every command."""

import dataclasses
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from ks_lottery._version import __version__
from ks_lottery.cli.app import app
from ks_lottery.finders.base import FINDERS, Shift
from ks_lottery.units.granularity import GRANULARITIES
from tests.cli.conftest import Outcome

Run = Callable[..., Outcome]
Pair = tuple[Path, Path]


def test_version_and_help(run: Run) -> None:
    assert run("--version") == (0, f"{__version__}\n", "")
    shown = run("--help")
    assert shown.code == 0
    assert "diff" in shown.out
    assert "find" in shown.out
    assert "Exit codes: 0 fine" in shown.out
    assert run().code == 2


def test_every_command_has_an_example_and_the_exit_codes(run: Run) -> None:
    program = typer.main.get_command(app)
    assert isinstance(program, typer.core.TyperGroup)
    names = list(program.commands)
    assert {"diff", "find", "export", "compare", "sign", "verify", "bench-planted"} <= set(names)
    for name in names:
        shown = run(name, "--help")
        assert shown.code == 0
        assert f"Example: ks-lottery {name} " in " ".join(shown.out.split())
        assert "2 wrong usage" in " ".join(shown.out.split())


@pytest.mark.parametrize("command", ["diff", "find"])
def test_help_of_a_command_lists_methods_and_has_an_example_that_works(
    run: Run, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    shown = run(command, "--help")
    text = " ".join(shown.out.split())
    assert shown.code == 0
    for registry in (FINDERS, GRANULARITIES):
        for name, entry in registry.items():
            listed = f"--{'finder' if registry is FINDERS else 'units'} {name}: " in text
            assert listed == (command == "find" or getattr(entry, "needs", Shift) is Shift)
            for field in dataclasses.fields(entry) if listed else ():
                assert f"--option {field.name}=...:" in text
    example, *others = re.findall(r"Example: ks-lottery (.*?) (?=╭|Options|Example)", text)
    assert all("--task task.yaml" in other for other in others)  # tests/cli/test_find_task.py has the file
    for name, folder in zip(("base-model", "tuned-model"), pair, strict=True):
        shutil.copytree(folder, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert run(*shlex.split(example)).code == 0


def test_a_library_error_is_one_line_and_code_1(run: Run, pair: Pair, tmp_path: Path) -> None:
    for command in ("diff", "find"):
        outcome = run(command, tmp_path, pair[1])
        assert outcome.code == 1
        assert outcome.out == ""
        assert outcome.err == (
            f"Error: {str(tmp_path)!r} has no config.json, so it is not a whole model. Give the folder that "
            "model.save_pretrained wrote.\n"
        )


def test_an_error_of_the_disk_is_one_line_and_code_1(run: Run, pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "x.csv").mkdir()
    outcome = run("diff", *pair, "--table", tmp_path / "x.csv")
    assert outcome.code == 1
    assert outcome.err.startswith("Error: [Errno ")
    assert outcome.err.count("\n") == 1
    assert os.listdir(tmp_path) == ["x.csv"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["diff"], "Missing argument"),
        (["diff", "A", "B", "--wrong"], "No such option: --wrong"),
        (["diff", "A", "B", "--jobs", "0"], "Invalid value for '--jobs'"),
        (["diff", "A", "B", "--sort", "size"], "Invalid value for '--sort'"),
        (["diff", "A", "B", "--table", "x.txt"], "--table x.txt: the file must end in one of .csv, .json, .parquet."),
        (["diff", "A", "B", "--units", "token_row"], "Unknown granularity 'token_row'. Did you mean 'token_rows'?"),
        (["diff", "A", "B", "--finder", "ks"], "a rule to select and --out need --units, such as --units token_rows."),
        (["find", "A", "B", "--finder", "kss"], "Unknown finder 'kss'. Did you mean 'ks'?"),
        (["find", "A", "B", "--alpha", "0"], "Alpha(0.0): alpha must be above 0 and at most 1"),
        (
            ["find", "A", "B", "--top-k", "3", "--alpha", "0.5"],
            "--alpha 0.5 and --top-k 3: give one of --alpha, --top-k",
        ),
        (["find", "A", "B", "--option", "ends=middle"], "TokenRows(ends='middle'): must be one of input, output, both"),
    ],
)
def test_wrong_usage_is_code_2_before_anything_is_read(run: Run, arguments: list[str], message: str) -> None:
    outcome = run(*arguments)
    assert outcome.code == 2
    assert message in outcome.words
    assert outcome.out == ""


def test_red_unless_no_color(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1;31mError: " in run("diff", tmp_path, tmp_path).err
    monkeypatch.setenv("NO_COLOR", "1")
    assert "31m" not in run("diff", tmp_path, tmp_path).err


def test_module_runs_as_the_program(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "ks_lottery.cli", "diff", tmp_path, tmp_path], capture_output=True, text=True
    )
    assert result.returncode == 1
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.stderr


_SLOW = """
import os, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start background jobs with Ctrl-C ignored
from {module} import {name} as original
import {module} as module

def slow(*arguments, **options):
    result = original(*arguments, **options)
    os.write(1, b"busy\\n")
    time.sleep({seconds})
    return result

module.{name} = slow
from ks_lottery.cli.app import main
main()
"""


def interrupted(module: str, name: str, arguments: list[object], seconds: float = 600) -> int:
    """Run the program with one of its functions slowed down, press Ctrl-C when it is there: the exit code."""
    script = _SLOW.format(module=module, name=name, seconds=seconds)
    command = [sys.executable, "-c", script, *map(str, arguments)]
    compile_nothing = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=compile_nothing
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "busy\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=300)
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    return code


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("suffix", "slowed"), [(".csv", "plain_values"), (".parquet", "_arrow")])
def test_ctrl_c_while_writing_leaves_no_half_file(pair: Pair, tmp_path: Path, suffix: str, slowed: str) -> None:
    table = tmp_path / f"rows{suffix}"
    table.write_text("old")
    arguments = ["diff", *pair, "--units", "token_rows", "--table", table]
    code = interrupted("ks_lottery.cli.table_file", slowed, arguments)
    assert code == 130
    assert os.listdir(tmp_path) == [table.name]
    assert table.read_text() == "old"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_while_comparing_stops_after_the_piece_in_hand(pair: Pair, tmp_path: Path) -> None:
    arguments = ["diff", *pair, "--table", tmp_path / "x.csv", "--jobs", "2"]
    code = interrupted("ks_lottery.checkpoints.diff", "compare_rows", arguments, seconds=0.5)
    assert code == 130
    assert os.listdir(tmp_path) == []
