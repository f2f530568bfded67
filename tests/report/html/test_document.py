"""A page is whole, loads nothing, and shows what came from elsewhere as text."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from ks_lottery.errors import DataError
from ks_lottery.report.html.document import html_page
from ks_lottery.report.html.figure import Section, Stack
from ks_lottery.report.html.heat_map import Cell, HeatMap
from ks_lottery.report.html.side_by_side import SideBySide
from ks_lottery.report.tables import plain
from ks_lottery.ticket.markdown import code, table
from tests.report.html.conftest import HOSTILE, example_translations

PAGE = "# Title\n\nText with **weight**.\n\n## Numbers\n\n" + table(["run", "score"], [["a", "1.0"], ["b", "—"]])


class Words:
    """A figure of words."""

    def html(self, name: str) -> Markup:
        return Markup("<figure id={}>words</figure>").format(name)


def body(page: str) -> str:
    return page[page.index("<main") : page.index("</main>")]


def test_headlines_tables_and_policy() -> None:
    page = html_page(PAGE, {})
    assert "<title>Title</title>" in page
    assert '<a href="#numbers">Numbers</a>' in page
    assert '<h2 id="numbers">Numbers</h2>' in page
    assert "<strong>weight</strong>" in page
    assert '<th scope="col">run</th>' in page
    assert '<th class="number" scope="col">score</th>' in page
    assert '<th scope="row">a</th>' in page
    assert '<td class="number">1.0</td>' in page
    assert "default-src 'none'" in page
    assert page.count("<script>") == 1
    assert not re.search(r"(src|href)=.https?://", page)


def test_the_same_page_each_time() -> None:
    assert html_page(PAGE, {}) == html_page(PAGE, {})


def test_empty_heads_of_columns_are_left_out() -> None:
    page = html_page("# T\n\n" + table(["", ""], [["model", "llama"]], left=2), {})
    assert "<thead>" not in body(page)
    assert '<th scope="row">model</th>' in page


def test_a_picture_is_its_figure() -> None:
    page = html_page("# T\n\n![Scores](scores.png)\n\nAfter ![in a line](scores.png).", {"scores.png": Words()})
    assert "<figure id=scores-png>words</figure>" in page
    assert "<p><figure id=scores-png>" not in page
    assert "<figure id=scores-png-2>words</figure>" in page
    with pytest.raises(DataError, match="The page shows 'other.png', but has no figure of that name"):
        html_page("![x](other.png)", {"scores.png": Words()})


def test_sections_stand_before_a_headline() -> None:
    section = Section("More", "Some *text*.", Stack([Words(), Words()]))
    page = html_page("# T\n\n## One\n\n## Doubts\n\nend", {}, [section], "Doubts")
    assert page.index('id="one"') < page.index('id="more"') < page.index("<em>text</em>") < page.index('id="doubts"')
    assert "<figure id=more-2-1>" in page
    assert "<figure id=more-2-2>" in page
    assert page.index('href="#more"') < page.index('href="#doubts"')
    with pytest.raises(DataError, match="The page has no headline 'Other' before which to put a section"):
        html_page("# T", {}, [section], "Other")


def test_equal_headlines_get_ids_of_their_own() -> None:
    page = html_page("# T\n\n## One\n\n## One\n\n## 的", {})
    assert re.findall(r'<h2 id="([^"]+)"', page) == ["one", "one-2", "part"]


def test_a_page_without_a_title() -> None:
    assert "<title>Report</title>" in html_page("words", {})


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60).map(lambda text: text + HOSTILE))
def test_no_text_becomes_markup(text: str) -> None:
    markdown = f"# {plain(text)}\n\n{plain(text)}\n\n" + table(
        ["a"], [[code(text.replace(chr(10), " "))], [plain(text)]]
    )
    page = html_page(f"{markdown}\n\n```\n{text}\n```\n\n{text}", {})
    assert page.count("<script>") == 1
    assert "<img" not in page
    assert "javascript:" not in re.findall(r'href="([^"]*)"', page)


def test_links_to_scripts_stay_text() -> None:
    assert "<a " not in body(html_page("# T\n\n[x](javascript:alert(1)) [y](data:text/html,1)", {}))


def test_tokens_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret-of-mine")
    page = html_page("# T\n\n```\nHF_TOKEN=secret-of-mine run --token hf_abcdefghijklmnopqrstuvwx\n```", {})
    assert "secret-of-mine" not in page
    assert "hf_abcdef" not in page


def test_a_heat_map_escapes_and_scales() -> None:
    cells = [Cell(1.0, "1", HOSTILE), Cell(3.0, "3", "three", chosen=True), Cell(None, "", "")]
    shown = HeatMap(HOSTILE, [("row", cells)], "layer", ["0", "1", HOSTILE], ("low", "high")).html("map")
    assert "<script" not in shown
    assert "<img" not in shown
    assert re.findall(r"--v:([0-9.]+)", shown) == ["0.000", "1.000"]
    assert shown.count('class="chosen"') == 1
    assert shown.count('tabindex="0"') == 2  # the region that scrolls, and the first cell
    assert "<td></td>" in shown


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "has 2 columns and rows of other lengths: {}. Give at least one row"),
        ([("a", [Cell(1.0, "", "")])], "rows of other lengths: {'a': 1}"),
        ([("a", [Cell(1.0, "", ""), Cell(float("nan"), "", "")])], "has nan in row 'a', column '1'. Leave out"),
    ],
)
def test_a_heat_map_that_cannot_be(rows: list, said: str) -> None:
    with pytest.raises(DataError, match=re.escape(said)):
        HeatMap("m", rows, "layer", ["0", "1"], ("low", "high"))


def test_translations_side_by_side() -> None:
    shown = SideBySide(example_translations(), ["base", "absent", "partial tuning"]).html("examples")
    assert shown.count("<article") == 12
    assert "absent" not in shown
    assert "<mark>Sentence 0 again</mark>" in shown
    assert '<span class="rest">\nand again</span>' in shown
    assert shown.count("does not stop") == 12
    assert "<em>nothing</em>" in shown
    assert "<script" not in shown


def test_the_package_ships_its_templates() -> None:
    folder = Path(__file__).resolve().parents[3] / "ks_lottery" / "report" / "html" / "templates"
    assert {file.suffix for file in folder.iterdir()} == {".html", ".css", ".js"}
