"""The pictures of strong tickets of attention are pictures, and their fit is that of an exponential."""

import io

import numpy as np
import pytest
from PIL import Image

from ks_lottery.errors import DataError
from ks_lottery.report.attention_plots import (
    ErrorCurve,
    ExponentialFit,
    length_picture,
    scale_picture,
    width_picture,
)

PLACES = (4, 8, 12)


def curve(label: str, factor: float = 1.0) -> ErrorCurve:
    return ErrorCurve(label, PLACES, [[factor * np.exp(-0.5 * n) * spread for spread in (0.5, 1, 3)] for n in PLACES])


def size(picture: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(picture)) as image:
        assert image.format == "PNG"
        return image.size


def test_fit_is_exact_for_an_exponential() -> None:
    fit = ExponentialFit.of(curve("one", 2.0))
    assert fit.factor == pytest.approx(2.0)
    assert fit.rate == pytest.approx(-0.5)
    assert fit.at(8) == pytest.approx(2 * np.exp(-4))
    assert str(fit) == "2 exp(-0.50 n')"


def test_medians() -> None:
    assert curve("one").medians == pytest.approx([np.exp(-2), np.exp(-4), np.exp(-6)])


def test_pictures() -> None:
    curves = [curve("$one$"), curve("two", 2), curve("three", 3)]
    plain = width_picture(curves, fitted=False)
    assert size(plain) == (1080, 660)
    assert plain == width_picture(curves, fitted=False)
    assert plain != width_picture(curves, curve("bound", 9))
    assert size(length_picture(curves, curves[:1])) == (1080, 660)
    assert size(scale_picture(curves, 8.0, "n^(1/4)")) == (1080, 600)


@pytest.mark.parametrize("errors", [[], [[]], [[1.0], [2.0]]])
def test_curves_without_draws(errors: list[list[float]]) -> None:
    with pytest.raises(DataError, match="Curve 'one' has 1 places and errors at"):
        ErrorCurve("one", (4,), errors)


@pytest.mark.parametrize("error", [0.0, float("inf"), float("nan")])
def test_errors_off_the_axis(error: float) -> None:
    with pytest.raises(DataError, match="no place on a logarithmic axis"):
        ErrorCurve("one", (4,), [[1.0, error]])
