"""DeepSpeed ZeRO-3 in one CPU process: a model that is made in partitions trains what a whole one does, or refuses."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training.workers.launch import CPU, run
from tests.training.workers.tickets import KINDS, base_model, train_by_hand, trained_values

pytestmark = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the process left."""
    folder = tmp_path_factory.mktemp("zero3")
    for kind in KINDS:
        base_model(kind).save_pretrained(folder / f"base-{kind}")
    run(["-m", "tests.training.workers.zero3", str(folder)], {**CPU, **ALONE, "DS_ACCELERATOR": "cpu"})
    return folder


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    """What it reports."""
    found: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mixed"])
def test_a_partitioned_model_trains_what_a_whole_one_does(folder: Path, report: dict[str, Any], kind: str) -> None:
    assert report[kind] == {"partitioned": True}
    trained = load_file(folder / f"{kind}.safetensors")
    expected = {name.replace(".default", ""): value for name, value in trained_values(train_by_hand(kind)).items()}
    assert {name for name in trained if "index" not in name} == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(trained[name], value, rtol=0, atol=1e-6)


def test_single_weights_and_norms_are_refused(folder: Path, report: dict[str, Any]) -> None:
    assert report["mixed"]["partitioned"]
    assert "single weights, norms and biases are trained in a copy" in report["mixed"]["refused"]
    assert not (folder / "mixed.safetensors").exists()
