"""The pictures are pictures, are the same each time, and bear every token and every gap in the data."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import rcParams
from PIL import Image

from ks_lottery.errors import DataError
from ks_lottery.report.canvas import to_png
from ks_lottery.report.plots import _overlap, free_place, score_drawing, token_shift_drawing
from ks_lottery.report.results import Result
from ks_lottery.report.token_shift import TokenShift
from tests.report.example import example_results, example_shift, example_ticket

FRAME = (0.0, 0.0, 400.0, 300.0)


def score_picture(results: list[Result]) -> bytes:
    return to_png(score_drawing(results), tight=True)


def token_shift_picture(shift: TokenShift, rows: Sequence[Mapping[str, Any]] = ()) -> bytes:
    return to_png(token_shift_drawing(shift, rows), tight=True)


def size(picture: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(picture)) as image:
        assert image.format == "PNG"
        return image.size


def test_token_shift_picture() -> None:
    rows = example_ticket()["rows"]
    picture = token_shift_picture(example_shift(), rows)
    width, height = size(picture)
    assert 1000 < width < 1600
    assert 600 < height < 1000
    assert token_shift_picture(example_shift(), rows) == picture
    assert token_shift_picture(example_shift()) != picture


@pytest.mark.parametrize("token", ["的", "$", "$\\frac$", "한국어", "\U0001f600", "▁the", r"'\n'", None])
def test_every_token_can_be_named(token: str | None) -> None:
    row = {"group": "input", "id": 1, "token": token}
    assert size(token_shift_picture(TokenShift([0.0, 0.5, 0.1], [0, 3, 2]), [row]))


def test_rows_of_other_groups_are_not_marked() -> None:
    shift = TokenShift([0.0, 0.5, 0.1], [0, 3, 2])
    row = {"group": "output", "id": 1, "token": "a"}
    assert token_shift_picture(shift, [row]) == token_shift_picture(shift)


def test_extreme_token_rows() -> None:
    everything = [{"group": "input", "id": number, "token": "word"} for number in range(400)]
    generator = np.random.default_rng(0)
    crowd = TokenShift(generator.random(400), generator.integers(0, 5, 400))
    assert size(token_shift_picture(crowd, everything))
    assert size(token_shift_picture(TokenShift([0.0], [0])))


def test_score_picture() -> None:
    results = example_results()
    picture = score_picture(results)
    assert size(picture)[1] > size(score_picture(results[:2]))[1]
    assert score_picture(results) == picture


def test_scores_that_are_missing_leave_a_gap() -> None:
    assert size(score_picture([Result(name="a"), Result(name="$x$ | long name of a run", bleu_whole=0.0)]))
    assert size(score_picture([Result(name="a")]))


def test_settings_of_the_process_stay() -> None:
    before = dict(rcParams)
    score_picture(example_results())
    assert dict(rcParams) == before


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.floats(0, 400), st.floats(0, 300), st.floats(5, 80), st.floats(8, 14)), max_size=30),
)
def test_labels_never_overlap_nor_leave_the_frame(labels: list[tuple[float, float, float, float]]) -> None:
    taken: list[tuple[float, float, float, float]] = []
    for x, y, width, height in labels:
        place = free_place((x, y), (width, height), taken, FRAME)
        if place is None:
            continue
        assert not any(_overlap(place, other) for other in taken)
        assert 0 <= place[0] <= place[2] <= 400
        assert 0 <= place[1] <= place[3] <= 300
        taken.append(place)


def test_the_first_place_is_right_of_the_point() -> None:
    assert free_place((100, 100), (20, 10), [], FRAME) == (108, 95, 128, 105)
    assert free_place((100, 100), (20, 10), [(101, 90, 200, 110)], FRAME) == (72, 95, 92, 105)
    assert free_place((100, 100), (20, 10), [FRAME], FRAME) is None


def test_token_rows_as_a_file() -> None:
    shift = example_shift()
    again = TokenShift.from_bytes(shift.to_bytes(), "tied")
    assert np.array_equal(again.statistic, shift.statistic)
    assert np.array_equal(again.count, shift.count)
    assert again.group == "tied"


@pytest.mark.parametrize(
    ("statistic", "count", "message"),
    [
        ([0.1], [1, 2], r"got shapes \(1,\) and \(2,\)"),
        ([], [], "needs one statistic and one count per row"),
        ([0.1, float("nan")], [1, 2], "The statistic of row 1 is NaN"),
    ],
)
def test_impossible_token_rows(statistic: list[float], count: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        TokenShift(statistic, count)


def test_damaged_token_rows() -> None:
    with pytest.raises(DataError, match="The token rows cannot be read"):
        TokenShift.from_bytes(b"nonsense")
