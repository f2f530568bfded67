"""What people do with a report's page, done in headless Chromium: open, sort, filter, point, walk, copy, print."""

from pathlib import Path
from typing import Any

import pytest

from ks_lottery.report.comparison import write_comparison
from tests.report.comparison_example import example_overlaps, example_records
from tests.report.html.browser import opened

SCORES = "main .table >> nth=1"


@pytest.fixture(scope="module")
def comparison_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    return write_comparison(
        folder, example_records(), example_overlaps(), {"seed": 0}, "ks-lottery compare x.yaml"
    ).with_name("comparison.html")


def column(page: Any, table: str, number: int) -> list[str]:
    cells = page.locator(f"{table} >> tbody tr:visible > :nth-child({number})")
    return [text.strip() for text in cells.all_inner_texts()]


def test_it_opens_without_complaint_and_without_a_network(
    browser: Any, report_page: Path, comparison_page: Path
) -> None:
    for file in (report_page, comparison_page):
        with opened(browser, file) as page:
            assert page.locator("h1").count() == 1
            assert page.locator("svg").count() >= 2
            ids = page.evaluate("Array.from(document.querySelectorAll('[id]'), one => one.id)")
            assert len(ids) == len(set(ids))
            links = page.evaluate("Array.from(document.querySelectorAll('nav a'), one => one.getAttribute('href'))")
            assert links
            assert {link[1:] for link in links} <= set(ids)


def test_nothing_that_came_from_elsewhere_runs(browser: Any, report_page: Path) -> None:
    with opened(browser, report_page) as page:
        page.locator("[data-note]").first.hover()
        assert page.evaluate("window.hacked") is None
        assert page.locator("main img").count() == 0
        assert page.evaluate("document.scripts.length") == 1
        assert "<script>window.hacked=1</script>" in page.locator("h1").inner_text()


def test_even_markup_that_got_in_would_not_run(browser: Any, report_page: Path, tmp_path: Path) -> None:
    text = report_page.read_text(encoding="utf-8")
    bad = tmp_path / "bad.html"
    bad.write_text(
        text.replace("</main>", '<script>window.hacked=1</script><img src="http://127.0.0.1:9/x.png"></main>')
    )
    inside = browser.new_context()
    page = inside.new_page()
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(bad.as_uri())
    assert page.evaluate("window.hacked") is None
    assert len([text for text in refused if "Content Security Policy" in text]) == 2
    inside.close()


def test_tables_sort_by_number_with_missing_values_last(browser: Any, report_page: Path) -> None:
    with opened(browser, report_page) as page:
        head = page.locator(f"{SCORES} >> thead th").nth(1)
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        up = column(page, SCORES, 2)
        assert [float(text.split()[0]) for text in up] == sorted(float(text.split()[0]) for text in up)
        head.locator("button").focus()
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "descending"
        assert column(page, SCORES, 2) == sorted(up, key=lambda text: -float(text.split()[0]))
        assert "Sorted by BLEU, whole, descending" in page.locator("#said").inner_text()
        stops = page.locator(f"{SCORES} >> thead th").nth(6)
        stops.locator("button").click()
        assert head.get_attribute("aria-sort") is None
        assert column(page, SCORES, 7)[-1] == "—"
        assert column(page, SCORES, 7)[:3] == ["0 %", "0 %", "7 %"]


def test_sizes_sort_by_bytes_and_names_by_alphabet(browser: Any, report_page: Path) -> None:
    cost = "main .table >> nth=2"
    with opened(browser, report_page) as page:
        page.locator(f"{cost} >> thead th").nth(2).locator("button").click()
        assert column(page, cost, 3)[:2] == ["15.4 kB", "2.4 MB"]
        page.locator(f"{cost} >> thead th").nth(0).locator("button").click()
        names = column(page, cost, 1)
        assert names == sorted(names, key=str.lower)


def test_tables_and_examples_filter(browser: Any, report_page: Path) -> None:
    with opened(browser, report_page) as page:
        box = page.locator(".filter input").first
        box.fill("CONTROL")
        assert column(page, SCORES, 1) == ["random control", "frequency control"]
        assert "2 of 9" in page.locator(".filter .count").first.inner_text()
        box.fill("")
        assert len(column(page, SCORES, 1)) == 9
        page.locator("input[data-filter]").fill("satz 11")
        assert page.locator(".example:visible").count() == 1


def test_points_say_what_they_are(browser: Any, report_page: Path) -> None:
    note = "#note"
    with opened(browser, report_page) as page:
        assert page.locator(note).is_hidden()
        page.locator("#token-shift-png [data-walk] [data-note]").first.hover()
        assert page.locator(note).inner_text().splitlines()[:3] == [". (row 0)", "D 0.1667", "20,000 occurrences"]
        page.keyboard.press("Escape")
        assert page.locator(note).is_hidden()
        page.locator("#scores-png [data-note]").first.hover()
        assert page.locator(note).inner_text() == "base\nBLEU, whole continuation: 2.5 [0.4, 4.7]"
        assert page.locator("#token-shift-png [data-note]").count() == 18 + 2741
        assert "▁t18 (row 18)" in page.evaluate(
            "Array.from(document.querySelectorAll('[data-note]'), one => one.dataset.note).join('\\n')"
        )


def test_points_are_reached_by_keyboard(browser: Any, report_page: Path) -> None:
    with opened(browser, report_page) as page:
        points = page.locator("#token-shift-png [data-walk] [tabindex]")
        assert points.count() == 18
        assert page.locator("#token-shift-png [data-walk] [tabindex='0']").count() == 1
        points.first.focus()
        page.keyboard.press("ArrowRight")
        assert page.locator("#note").inner_text().startswith("R (row 1)")
        page.keyboard.press("End")
        assert "(row 17)" in page.locator("#note").inner_text()
        assert page.locator("#token-shift-png [data-walk] [tabindex='0']").count() == 1
        assert points.last.get_attribute("aria-label").startswith("▁_a_ (row 17)")


def test_the_heat_map_is_a_grid_to_walk_in(browser: Any, comparison_page: Path) -> None:
    with opened(browser, comparison_page) as page:
        grid = page.locator("[role=grid]").first
        cells = grid.locator("[role=gridcell]")
        cells.first.focus()
        first = page.locator("#note").inner_text()
        assert "Jaccard" in first
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowRight")
        assert page.locator("#note").inner_text() != first
        page.keyboard.press("Home")
        assert page.locator("#note").inner_text() == first
        assert grid.locator("td.chosen").count() > 0


def test_the_command_is_copied(browser: Any, report_page: Path) -> None:
    with opened(browser, report_page, permissions=["clipboard-read", "clipboard-write"]) as page:
        button = page.locator("button.copy").first
        button.click()
        page.wait_for_function("document.querySelector('button.copy').textContent === 'Copied'")
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied.startswith("python recipes/translate.py --note '<img src=x")


def test_light_dark_and_by_hand(browser: Any, report_page: Path) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, report_page, color_scheme="light") as page:
        assert page.evaluate(colour) == "rgb(255, 255, 255)"
    with opened(browser, report_page, color_scheme="dark") as page:
        assert page.evaluate(colour) == "rgb(20, 23, 26)"
        page.locator("#theme").click()
        assert page.evaluate(colour) == "rgb(255, 255, 255)"
        assert page.locator("#theme").inner_text() == "Colours: light"


def test_it_prints(browser: Any, report_page: Path) -> None:
    with opened(browser, report_page, color_scheme="dark") as page:
        page.emulate_media(media="print")
        for control in (".filter input", "#theme", "button.copy", "nav"):
            assert page.locator(control).first.is_hidden()
        paper = page.pdf(format="A4", print_background=True)
        assert paper.startswith(b"%PDF")
        assert paper.count(b"/Type /Page\n") + paper.count(b"/Type /Page ") >= 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_barrier_that_axe_knows(browser: Any, report_page: Path, comparison_page: Path, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    for file in (report_page, comparison_page):
        with opened(browser, file, color_scheme=scheme, bypass_csp=True) as page:
            found = Axe().run(page).response["violations"]
            assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found] == []


def test_without_script_everything_is_there(browser: Any, report_page: Path) -> None:
    with opened(browser, report_page, java_script_enabled=False) as page:
        assert page.locator("button.copy").first.is_hidden()
        assert len(column(page, SCORES, 1)) == 9
        assert page.locator(".example").count() == 12
        assert page.locator("mark").first.inner_text().strip() == "Sentence 0 again"


def test_on_a_narrow_screen_only_tables_scroll(browser: Any, report_page: Path) -> None:
    with opened(browser, report_page, viewport={"width": 390, "height": 800}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
