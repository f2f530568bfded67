"""What people see: consoles, an error in one line, the progress bar, numbers."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text
from typing_extensions import override

from ks_lottery.checkpoints.redaction import redacted
from ks_lottery.ticket.markdown import MISSING

if TYPE_CHECKING:
    from rich.progress import Progress

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead, and nothing else there.")]

_WIDE = 1000
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")  # all but the line feed
_WORKER = "KS_LOTTERY_PARENT"  # which `evaluation.comparison.workers` gives to the processes that it starts

PAIRED = (
    "Before and after are paired values of one parameter, so D and any p code the size of a shift; they are no error "
    "rate."
)


class _SafeConsole(Console):
    """A console on which no text can move the cursor or set the title: its control characters are spelled out."""

    @override
    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if not segment.control and _CONTROL.search(segment.text):
                yield Segment(_CONTROL.sub(lambda found: repr(found[0])[1:-1], segment.text), segment.style)
            else:
                yield segment


def console(stderr: bool = False) -> Console:
    """A console that follows NO_COLOR; where the stream is no terminal, lines are as long as they are."""
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return _SafeConsole(stderr=stderr, width=None if terminal else _WIDE, highlight=False)


def print_json(value: object) -> None:
    """Write a value to standard output as JSON, readable and with sorted keys."""
    sys.stdout.write(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


@contextmanager
def only_json(wanted: bool) -> Iterator[None]:
    """Inside the block, whatever is printed goes to standard error if JSON is wanted: a Trainer's log, for one.

    Args:
        wanted: whether standard output is to hold one JSON document alone, which is printed after the block.
    """
    with redirect_stdout(sys.stderr) if wanted else nullcontext():
        yield


def print_error(message: str) -> None:
    """Write a message to standard error, in red, not wrapped, without tokens and passwords."""
    console(stderr=True).print(Text(f"Error: {redacted(message)}", style="bold red"), soft_wrap=True)


def print_interrupted() -> None:
    """Say in one line that Ctrl-C ended the program; a worker leaves that to who started it."""
    if _WORKER not in os.environ:
        console(stderr=True).print(Text("Interrupted: nothing was half written.", style="bold red"), soft_wrap=True)


def print_note(message: str) -> None:
    """Write a remark to standard error, in yellow, not wrapped."""
    console(stderr=True).print(Text(f"Note: {redacted(message)}", style="yellow"), soft_wrap=True)


@contextmanager
def progress_bar(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """A bar on standard error with bytes per second and the time that is left, where that is a terminal.

    Args:
        total: bytes to come.
        what: label.

    Yields:
        a function that takes the number of bytes done since its last call.
    """
    with announced_bar(what) as announce:
        yield announce(total)


@contextmanager
def announced_bar(what: str) -> Iterator[Callable[[int], Callable[[int], None]]]:
    """A bar as `progress_bar`, for work that finds out by itself how much it is.

    Args:
        what: label.

    Yields:
        a function that takes the number of bytes to come, and returns one that takes those done since its last call.
    """
    with _bar() as bar:
        task = bar.add_task(what, total=None, visible=False)

        def announce(total: int) -> Callable[[int], None]:
            bar.update(task, total=total, visible=True)
            return lambda count: bar.advance(task, count)

        yield announce


def _bar() -> "Progress":
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    screen = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=screen, transient=True, disable=not screen.is_terminal)


def share_bar(share: float, width: int = 24) -> str:
    """A share from 0 to 1 as a bar of text; anything above 0 shows, and only 1 fills it.

    Args:
        share: from 0 to 1.
        width: letters.
    """
    eighths = round(share * width * 8)
    eighths = min(max(eighths, 1 if share else 0), width * 8 - (share < 1))
    whole, rest = divmod(eighths, 8)
    if not _shows("█▏·"):
        return ("#" * (whole + bool(rest))).ljust(width, ".")
    return ("█" * whole + (" ▏▎▍▌▋▊▉"[rest] if rest else "")).ljust(width, "·")


def _shows(letters: str) -> bool:
    """Whether standard output has these letters."""
    try:
        letters.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def written(folder: Path) -> tuple[list[str], int]:
    """Names of the files that a command left in a folder, sorted, and their bytes together."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return files, sum((folder / file).stat().st_size for file in files)


def number(value: float | None, digits: int = 4) -> str:
    """A number in few characters, a dash for None."""
    return MISSING if value is None else f"{value:.{digits}g}"


def percent(share: float) -> str:
    """A share in per cent; only one that is exactly 0 or 1 is written "0 %" or "100 %"."""
    if share in (0.0, 1.0):
        return f"{share:.0%}".replace("%", " %")
    return "< 0.01 %" if share < 1e-4 else "> 99.99 %" if share > 0.9999 else f"{100 * share:.2f} %"
