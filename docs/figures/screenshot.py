"""Takes the picture of a report in reading-the-report.md: `python docs/figures/screenshot.py`, which needs Chromium."""

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from ks_lottery.report.report import rebuild_report

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Open the report of the embedded run, point at a row of the ticket, and keep what is seen."""
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = Path(temporary) / "report"
        shutil.copytree(HERE.parent / "results" / "embedded-en-de", folder)
        page_file = rebuild_report(folder).with_name("report.html")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        context = browser.new_context(
            color_scheme="light", reduced_motion="reduce", viewport={"width": 1000, "height": 720}
        )
        page = context.new_page()
        page.goto(page_file.as_uri())
        page.locator("#token-shift-png").evaluate("one => one.scrollIntoView({block: 'center'})")
        page.locator("#token-shift-png [data-walk] [data-note]").nth(3).hover()
        page.screenshot(path=HERE / "report.png")
        browser.close()


if __name__ == "__main__":
    main()
