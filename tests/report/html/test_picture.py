"""A drawing inside a page: ids that clash with nothing, colours of the page, notes at the right marks."""

import re

import numpy as np
import pytest

from ks_lottery.report.canvas import new_figure
from ks_lottery.report.html.picture import Picture
from ks_lottery.report.plots import OTHER_ROWS, TICKET_ROWS, rows_shown, token_shift_drawing
from ks_lottery.report.size_plot import bytes_drawing, saved
from ks_lottery.report.token_shift import TokenShift
from tests.report.example import example_results, example_shift
from tests.report.html.conftest import HOSTILE


def points(count: int) -> Picture:
    figure = new_figure(2.0, 2.0)
    axes = figure.add_subplot()
    axes.scatter(range(count), range(count), color="#2b6cb0", gid="points")
    axes.set_title(HOSTILE, parse_math=False)
    return Picture(figure, "Points", "Some.", {"points": [f"{HOSTILE}{n}" for n in range(count)]}, ("points",))


def test_every_mark_has_its_note() -> None:
    shown = points(3).html("one")
    notes = re.findall(r'data-note="([^"]*)"', shown)
    assert [note[-1] for note in notes] == ["0", "1", "2"]
    assert "<script" not in shown
    assert "<img" not in shown
    assert re.findall(r'tabindex="(-?\d)"', shown) == ["0", "-1", "-1"]
    assert "var(--c-2b6cb0, #2b6cb0)" in shown
    assert "<style" not in shown
    assert "<?xml" not in shown


def test_two_drawings_share_no_id() -> None:
    ids = [set(re.findall(r' id="([^"]+)"', points(3).html(name))) for name in ("one", "two")]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert points(3).html("one") == points(3).html("one")


def test_crowds_are_pointed_at_but_not_walked_over() -> None:
    shown = points(201).html("crowd")
    assert shown.count("data-note") == 201
    assert "tabindex" not in shown


def test_a_text_too_few_is_an_error() -> None:
    picture = points(3)
    with pytest.raises(ValueError, match="shorter"):
        Picture(picture.drawing, "Points", "Some.", {"points": ["a"]}).html("one")


def test_the_rest_of_a_large_vocabulary_is_one_picture() -> None:
    generator = np.random.default_rng(0)
    shift = TokenShift(generator.random(6000), generator.integers(1, 90, 6000))
    rows = [{"group": "input", "id": number, "token": "word"} for number in range(5)]
    chosen, others = rows_shown(shift, rows)
    assert chosen.tolist() == [0, 1, 2, 3, 4]
    assert len(others) == 4000
    assert shift.statistic[others].min() >= np.sort(shift.statistic[5:])[-4000]
    notes = {OTHER_ROWS: [""] * 4000, TICKET_ROWS: [""] * 5}
    shown = Picture(token_shift_drawing(shift, rows), "Rows", "All.", notes).html("rows")
    assert shown.count("data-note") == 4005
    assert shown.count("data:image/png") == 1


def test_sizes() -> None:
    results = example_results()
    known = saved(results)
    assert [one.name for one in known] == ["partial tuning", "embed tuning"]
    notes = {f"saved-{place}": one.name for place, one in enumerate(known)}
    shown = Picture(bytes_drawing(results), "Sizes", "All.", notes).html("sizes")
    assert re.findall(r'data-note="([^"]*)"', shown) == ["partial tuning", "embed tuning"]


def test_tokens_of_every_row_survive_their_file() -> None:
    shift = example_shift()
    tokens = tuple(f"▁t{number}" for number in range(len(shift.count)))
    named = TokenShift(shift.statistic, shift.count, "input", tokens)
    assert TokenShift.from_bytes(named.to_bytes()).tokens == tokens
    assert TokenShift.from_bytes(shift.to_bytes()).tokens is None
