"""What people see: consoles, an error in one line, the progress bar, numbers."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from ks_lottery.ticket.markdown import MISSING

_WIDE = 1000

PAIRED = (
    "Before and after are paired values of one parameter, so D and any p code the size of a shift; they are no error "
    "rate."
)


def console(stderr: bool = False) -> Console:
    """A console that follows NO_COLOR; where the stream is no terminal, lines are as long as they are."""
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, width=None if terminal else _WIDE, highlight=False)


def print_json(value: object) -> None:
    """Write a value to standard output as JSON, readable and with sorted keys."""
    sys.stdout.write(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def print_error(message: str) -> None:
    """Write a message to standard error, in red, not wrapped."""
    console(stderr=True).print(Text(f"Error: {message}", style="bold red"), soft_wrap=True)


@contextmanager
def progress_bar(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """A bar on standard error with bytes per second, where that is a terminal.

    Args:
        total: bytes to come.
        what: label.

    Yields:
        a function that takes the number of bytes done since its last call.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    screen = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, TimeRemainingColumn(), console=screen, transient=True, disable=not screen.is_terminal)
    with bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


def number(value: float | None, digits: int = 4) -> str:
    """A number in few characters, a dash for None."""
    return MISSING if value is None else f"{value:.{digits}g}"


def percent(share: float) -> str:
    """A share in per cent; only one that is exactly 0 or 1 is written "0 %" or "100 %"."""
    if share in (0.0, 1.0):
        return f"{share:.0%}".replace("%", " %")
    return "< 0.01 %" if share < 1e-4 else "> 99.99 %" if share > 0.9999 else f"{100 * share:.2f} %"
