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
from transformers import AutoModelForCausalLM

from ks_lottery._version import __version__
from ks_lottery.adapter.attach import attach_ticket
from ks_lottery.cli.app import app
from ks_lottery.finders.base import FINDERS, Shift
from ks_lottery.units.granularity import GRANULARITIES
from tests.adapter.tickets import make_ticket
from tests.cli.conftest import Outcome
from tests.fake_hub import FakeHub

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
    assert set(names) == {
        "find", "diff", "show", "compare", "export", "merge", "push", "pull", "sign", "verify", "doctor", "finders",
        "units", "bench-planted",
    }  # fmt: skip
    for name in names:
        shown = run(name, "--help")
        assert shown.code == 0
        assert f"Example: ks-lottery {name} " in " ".join(shown.out.split())
        assert "2 wrong usage" in " ".join(shown.out.split())


def examples(name: str) -> list[list[str]]:
    """The words of every example in a command's help."""
    program = typer.main.get_command(app)
    assert isinstance(program, typer.core.TyperGroup)
    return [shlex.split(line) for line in re.findall(r"Example: (ks-lottery .*)", str(program.commands[name].help))]


@pytest.mark.parametrize("name", sorted(typer.main.get_command(app).commands))  # type: ignore[attr-defined]
def test_every_example_parses(name: str) -> None:
    program = typer.main.get_command(app)
    assert isinstance(program, typer.core.TyperGroup)
    found = examples(name)
    assert found
    for words in found:
        with program.make_context("ks-lottery", words[1:2]) as context:
            program.commands[words[1]].make_context(words[1], words[2:], parent=context)


def test_every_command_can_print_json() -> None:
    program = typer.main.get_command(app)
    assert isinstance(program, typer.core.TyperGroup)
    for name, command in program.commands.items():
        assert "--json" in {word for param in command.params for word in param.opts}, name


def test_the_examples_work_one_after_the_other(
    run: Run, pair: Pair, tmp_path: Path, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, folder in zip(("base-model", "tuned-model"), pair, strict=True):
        shutil.copytree(folder, name)
    model = AutoModelForCausalLM.from_pretrained("base-model")
    attach_ticket(model, make_ticket(model, "input")).save_pretrained("adapter")
    fake_hub.add("user/base-model", pair[0])
    assert run(*examples("find")[0][1:]).code == 0
    fake_hub.add("user/my-ticket", Path("ticket"))
    names = ("diff", "show", "export", "merge", "pull", "sign", "doctor", "finders", "units")
    for words in [words for name in names for words in examples(name)]:
        outcome = run(*words[1:])
        assert outcome.code == 0, (words, outcome.err)
    push = [word if word != "me/my-ticket" else "tester/my-ticket" for word in examples("push")[0][1:]]
    assert run(*push).code == 0


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
        said = process.stderr.read()
        assert "Traceback" not in said
        assert said.splitlines()[-1] == "Interrupted: nothing was half written."
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


_HALF_TYPED = """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
import ks_lottery.cli.app as program
def stop(**options):
    os.kill(os.getpid(), signal.SIGINT)
program.app = stop
program.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("worker", [False, True])
def test_ctrl_c_outside_a_command_is_one_line_and_a_worker_s_none(worker: bool) -> None:
    environment = os.environ | ({"KS_LOTTERY_PARENT": "1"} if worker else {})
    result = subprocess.run([sys.executable, "-c", _HALF_TYPED], capture_output=True, text=True, env=environment)
    assert result.returncode == 130
    assert result.stderr == ("" if worker else "Interrupted: nothing was half written.\n")


def test_errors_tell_no_token(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    outcome = run("show", "/nowhere/hf_very_secret.safetensors")
    assert outcome.code == 1
    assert "hf_very_secret" not in outcome.err
    assert "[hidden]" in outcome.err
