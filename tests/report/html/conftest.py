"""One browser for all tests of pages, and the pages."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ks_lottery.report.examples import TranslationExample, Written
from ks_lottery.report.report import write_report
from tests.report.example import example_report, example_shift
from tests.report.html.browser import chromium

HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def example_translations() -> list[TranslationExample]:
    return [
        TranslationExample(
            f"Sentence {number} {HOSTILE if number == 0 else ''}",
            (f"Satz {number}",),
            {
                "base": Written(f"\n\nSentence {number} again\nand again", False),
                "full tuning": Written(f"Satz {number}", True),
                "partial tuning": Written("" if number == 3 else f"Satz {number} {HOSTILE}\n", True),
            },
        )
        for number in range(12)
    ]


@pytest.fixture(scope="session")
def report_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A translation report with everything in it, and hostile texts wherever texts come from elsewhere."""
    report = example_report()
    assert report.ticket is not None
    rows = [dict(row) for row in report.ticket["rows"]]
    rows[4]["token"] = HOSTILE
    shift = example_shift()
    tokens = [f"{HOSTILE}{number}" if number % 100 == 50 else f"▁t{number}" for number in range(len(shift.count))]
    report = dataclasses.replace(
        report,
        ticket={**report.ticket, "rows": rows, "base": {**report.ticket["base"], "name": HOSTILE}},
        token_shift=dataclasses.replace(shift, tokens=tokens),
        examples=example_translations(),
        meta={"model": HOSTILE, HOSTILE: "value", "test sentences": 300},
        title=f"English to German {HOSTILE}",
        command=f"python recipes/translate.py --note '{HOSTILE}'",
    )
    return write_report(tmp_path_factory.mktemp("report"), report).with_name("report.html")
