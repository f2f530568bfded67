"""A model on the Hub is described by the headers of its files, and no weight is downloaded."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from ks_lottery.checkpoints.hub_headers import HubHeaders, open_headers
from ks_lottery.checkpoints.reader import FolderCheckpoint, open_checkpoint
from ks_lottery.errors import CheckpointError
from tests.fake_hub import FakeHub
from tests.hub_trouble import busy
from tests.tiny_models import tiny_llama


@pytest.fixture(params=["1MB", "20KB"], ids=["one file", "shards"])
def model(fake_hub: FakeHub, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder with a model that is on the fake Hub as well."""
    tiny_llama(tied=True).save_pretrained(tmp_path / "model", max_shard_size=request.param)
    fake_hub.add("tester/model", tmp_path / "model")
    return tmp_path / "model"


def test_names_shapes_and_ties_are_those_of_the_files(fake_hub: FakeHub, model: Path) -> None:
    folder, remote = FolderCheckpoint(model), open_headers("tester/model")
    assert isinstance(remote, HubHeaders)
    assert (remote.model_type, remote.tied) == ("llama", True)
    assert remote.layout() == folder.layout()
    assert {name: remote.dtype(name) for name in remote.names()} == dict.fromkeys(folder.names(), "float32")
    assert remote.revision == fake_hub.repositories["tester/model"].branches["main"]
    assert list(Path(constants.HF_HUB_CACHE).rglob("*.safetensors")) == []
    assert remote.bits("model.norm.weight").array.shape == (32,)
    with pytest.raises(CheckpointError, match="has no tensor 'absent'"):
        remote.shape("absent")


def test_a_folder_and_a_cached_repository_are_opened_as_always(
    fake_hub: FakeHub, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert type(open_headers(model)) is FolderCheckpoint
    whole = open_checkpoint("tester/model")
    shapes = {name: whole.shape(name) for name in whole.names()}
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert open_headers("tester/model").layout().shapes == shapes
    with pytest.raises(CheckpointError, match="is not a folder"):
        open_headers("/nowhere/at/all")


def test_a_repository_without_safetensors(fake_hub: FakeHub) -> None:
    fake_hub.add("tester/pickle", {"config.json": b'{"model_type": "llama"}', "pytorch_model.bin": b"x"})
    with pytest.raises(CheckpointError, match="'tester/pickle' holds no safetensors that can be read"):
        open_headers("tester/pickle")


def test_a_busy_hub_is_waited_for(fake_hub: FakeHub, model: Path) -> None:
    fake_hub.troubles = [busy("/tester/model/resolve/.*/model.*", wait=3, times=1)]
    assert open_headers("tester/model").num_parameters() == FolderCheckpoint(model).num_parameters()
    assert fake_hub.waits == [3]
