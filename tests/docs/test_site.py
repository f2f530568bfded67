"""The site builds without a warning, has every page, and loads nothing from elsewhere."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from ks_lottery.finders.base import FINDERS
from ks_lottery.units.granularity import GRANULARITIES
from tests.docs.pages import DOCS, ROOT

pytest.importorskip("mkdocs")


class _Loads(HTMLParser):
    """What a page fetches to be shown."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe") and given.get("src"):
            self.addresses.append(str(given["src"]))
        if tag == "link" and given.get("rel") in ("stylesheet", "preconnect"):
            self.addresses.append(str(given.get("href")))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr[-4000:]
    assert "WARNING" not in built.stderr
    return folder


def pages(entry: object) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    values = entry if isinstance(entry, list) else list(entry.values())  # type: ignore[attr-defined]
    return [page for value in values for page in pages(value)]


def test_every_page_is_there(site: Path) -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    named = pages(nav)
    assert [name for name in named if not (site / name).with_suffix(".html").is_file()] == []
    written = {file.name for file in DOCS.glob("*.md")}
    assert written <= set(named), "a page that nobody finds"


def test_what_is_registered_has_its_documentation(site: Path) -> None:
    for page, registry in (("finders", FINDERS), ("units", GRANULARITIES)):
        text = (site / "reference" / f"{page}.html").read_text(encoding="utf-8")
        assert [name for name in registry.names() if f'id="{name}"' not in text] == []


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for file in sorted(site.glob("*.html")) + sorted(site.glob("reference/*.html")):
        parser = _Loads()
        parser.feed(file.read_text(encoding="utf-8"))
        assert [address for address in parser.addresses if re.match(r"(https?:)?//", address)] == [], file.name


def test_reports_can_be_opened(site: Path) -> None:
    gallery = (site / "reports.html").read_text(encoding="utf-8")
    links = re.findall(r'href="(reports/[^"]+\.html)"', gallery)
    assert len(links) >= 5
    for link in links:
        assert "Content-Security-Policy" in (site / link).read_text(encoding="utf-8")
