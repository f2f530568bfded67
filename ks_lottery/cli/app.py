"""The program `ks-lottery`: its commands, and what becomes of errors and of Ctrl-C."""

import io
import os
import sys

import typer
from typer.core import TyperCommand

from ks_lottery._version import __version__
from ks_lottery.cli.bench_planted import bench_planted
from ks_lottery.cli.compare import compare
from ks_lottery.cli.diff import diff
from ks_lottery.cli.doctor import doctor
from ks_lottery.cli.export import export
from ks_lottery.cli.find import find
from ks_lottery.cli.finders import finders
from ks_lottery.cli.merge import merge
from ks_lottery.cli.method import FinderCommand, MethodCommand
from ks_lottery.cli.pull import pull
from ks_lottery.cli.push import push
from ks_lottery.cli.screen import print_error, print_interrupted
from ks_lottery.cli.show_ticket import show
from ks_lottery.cli.sign import sign
from ks_lottery.cli.units import units
from ks_lottery.cli.verify import verify
from ks_lottery.errors import LotteryError

INTERRUPTED = 130
_EPILOG = (
    "Exit codes: 0 fine, also where the checkpoints differ; 1 an error, said in one line on standard error, or a "
    "check that does not hold; 2 wrong usage: a command, an option or a name that does not exist, or a value that it "
    "cannot have; 130 stopped by Ctrl-C, with nothing half written."
)

app = typer.Typer(
    name="ks-lottery",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog=_EPILOG,
)
commands = (
    (find, FinderCommand), (diff, MethodCommand), (show, TyperCommand), (compare, TyperCommand),
    (export, TyperCommand), (merge, TyperCommand), (push, TyperCommand), (pull, TyperCommand), (sign, TyperCommand),
    (verify, TyperCommand), (doctor, TyperCommand), (finders, TyperCommand), (units, TyperCommand),
    (bench_planted, TyperCommand),
)  # fmt: skip
for command, kind in commands:
    paragraphs = (command.__doc__ or "").split("\n\n")
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    app.command(cls=kind, help=text, epilog=_EPILOG)(command)


@app.callback(invoke_without_command=True)
def program(
    version: bool = typer.Option(False, "--version", help="Print the version and leave.", is_eager=True),
) -> None:
    """Find the few parameters of a transformer that matter for a task."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the program; errors that the library raises on purpose end in one line and exit code 1, Ctrl-C in 130."""
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # tokens have letters that not every terminal has
    try:
        app(prog_name="ks-lottery")
    except (LotteryError, OSError) as error:
        print_error(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        print_interrupted()
        sys.exit(INTERRUPTED)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # what typer makes of Ctrl-C inside a command
            print_interrupted()
        raise
