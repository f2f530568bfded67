"""The pictures of stability are pictures, with any number of curves."""

import io

import pytest
from PIL import Image

from ks_lottery.errors import DataError
from ks_lottery.evaluation.stability import Connectivity, Instability
from ks_lottery.report.curves import instability_picture, path_picture


def path(barrier: float) -> Connectivity:
    return Connectivity((0.0, 0.5, 1.0), {"loss": (0.1, 0.1 + barrier, 0.1), "error": (0.1, 0.1 + barrier, 0.1)})


def size(picture: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(picture)) as image:
        assert image.format == "PNG"
        return image.size


def test_paths() -> None:
    paths = {f"from step ${step}$": path(step / 100) for step in range(9)}
    picture = path_picture(paths)
    assert size(picture) == (1350, 540)
    assert picture == path_picture(paths)
    assert size(path_picture({"one": path(-0.05)}))
    with pytest.raises(DataError, match="There is no path to draw"):
        path_picture({})


def test_instability() -> None:
    curve = Instability((0, 100, 1000), (path(0.3), path(0.1), path(0.01)))
    picture = instability_picture(curve)
    assert size(picture) == (1350, 510)
    assert picture != instability_picture(Instability(curve.steps, curve.paths, threshold=1e-6))
    assert size(instability_picture(Instability((5,), (path(0.0),))))
