"""A mask over a random generator brings the moments of its features ten times nearer, and trains no weight."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_generator
from toy_generator import Experiment, ring

from ks_lottery.errors import DataError
from ks_lottery.report.samples import samples_picture


@pytest.mark.parametrize("density", [0.5, 0.1])
def test_a_mask_alone_brings_the_moments_near(density: float) -> None:
    experiment = Experiment(0, density)
    before = [weight.clone() for weight in experiment.model.parameters()]
    masks = experiment.find(steps=200)
    assert all(torch.equal(one, other) for one, other in zip(before, experiment.model.parameters(), strict=True))
    assert [int(mask.sum()) for mask in masks] == [round(density * mask.numel()) for mask in masks]
    (first,) = {int(mask.sum()) for mask in experiment.find(steps=1)[:1]}
    assert first == int(masks[0].sum())
    start = experiment.measure(experiment.points(experiment.find(steps=1)))["moment_gap"]
    end = experiment.measure(experiment.points(masks))["moment_gap"]
    assert end < start / 10
    assert end < experiment.measure(experiment.points(experiment.shuffled(masks)))["moment_gap"] / 10
    assert all(torch.equal(one, other) for one, other in zip(before, experiment.model.parameters(), strict=True))


def test_the_ring_has_its_own_moments() -> None:
    found = Experiment(0, 0.5).measure(ring(4096, 12345))
    assert found["moment_gap"] < 1e-4
    assert found["radius_mean"] == pytest.approx(1.0, abs=0.01)
    assert found["radius_deviation"] == pytest.approx(0.05, abs=0.005)


def test_the_recipe_writes_numbers_and_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--seeds", "1", "--steps", "3", "--densities", "0.5", "--out", str(tmp_path / "new")]
    monkeypatch.setattr("sys.argv", ["toy_generator.py", *words])
    toy_generator.main()
    assert "| 0.5 | 0 | ticket |" in capsys.readouterr().out
    found = json.loads((tmp_path / "new" / "generator.json").read_text())
    assert [row["generator"] for row in found["rows"]] == ["all weights", "random mask", "ticket"]
    assert found["rows"][-1]["kept_per_layer"] == [1024, 8192, 128]
    assert (tmp_path / "new" / "generator.png").read_bytes().startswith(b"\x89PNG")


def test_only_points_of_the_plane_are_drawn() -> None:
    with pytest.raises(DataError, match=r"clouds of points \[n, 2\], but got {'a': \(3, 3\)}"):
        samples_picture({"a": np.zeros((3, 3))})
    with pytest.raises(DataError, match="but got none"):
        samples_picture({})
