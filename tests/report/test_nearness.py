"""The picture of distances against density."""

import pytest

from ks_lottery.errors import DataError
from ks_lottery.report.nearness import nearness_picture


def test_it_is_a_picture_and_the_same_again() -> None:
    panels = {
        "weights": {"concrete": {0.01: [0.3, 0.4], 0.1: [0.1]}, "random": {0.01: [2.0], 0.1: [1.0]}},
        "neurons": {"ks": {0.05: [0.5, 0.6]}},
    }
    picture = nearness_picture(panels, {"weights": 3.0}, "KL")
    assert picture.startswith(b"\x89PNG")
    assert picture == nearness_picture(panels, {"weights": 3.0}, "KL")
    assert picture != nearness_picture(panels, {}, "KL")


@pytest.mark.parametrize("panels", [{}, {"weights": {"concrete": {0.1: [0.0]}}}])
def test_there_is_something_above_zero_to_draw(panels: dict) -> None:
    with pytest.raises(DataError, match="all of them above 0"):
        nearness_picture(panels, {}, "KL")
