"""Live models, folders and shards read alike; damaged ones end in one clear error."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ks_lottery.checkpoints.pair import paired_chunks
from ks_lottery.checkpoints.reader import FolderCheckpoint, ModelCheckpoint, open_checkpoint
from ks_lottery.checkpoints.safetensors_file import SafetensorsFile
from ks_lottery.errors import CheckpointError
from tests.tiny_models import tiny_llama

EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "base"
    tiny_llama().save_pretrained(path)
    return path


@pytest.mark.parametrize("shard_size", ["10GB", "10KB"], ids=["whole", "sharded"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_folder_and_live_model_read_alike(tmp_path: Path, shard_size: str, tied: bool, dtype: torch.dtype) -> None:
    model = tiny_llama(tied=tied, dtype=dtype)
    model.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard_size == "10KB")
    live, stored = open_checkpoint(model), open_checkpoint(tmp_path)
    assert sorted(live.names()) == sorted(stored.names())
    assert live.layout() == stored.layout()
    assert live.num_parameters() == stored.num_parameters() == sum(p.numel() for p in model.parameters())
    for name in live.names():
        assert stored.dtype(name) == dtype
        assert torch.equal(live.rows(name), stored.rows(name))
        pieces = [piece.clone() for _, piece in stored.chunks(name, chunk_bytes=200)]
        assert torch.equal(torch.cat(pieces), live.rows(name))
    assert torch.equal(stored.rows(EMBEDDING, 3, 7), live.rows(EMBEDDING, 3, 7))


def test_writing_to_a_view_never_reaches_the_file(folder: Path) -> None:
    before = load_file(folder / "model.safetensors")[EMBEDDING]
    open_checkpoint(folder).rows(EMBEDDING).zero_()
    assert torch.equal(load_file(folder / "model.safetensors")[EMBEDDING], before)


def test_files_without_the_base_models_prefix_are_read(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "config.json", tmp_path)
    tensors = {name.removeprefix("model."): value for name, value in load_file(folder / "model.safetensors").items()}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert sorted(open_checkpoint(tmp_path).names()) == sorted(open_checkpoint(folder).names())
    assert torch.equal(open_checkpoint(tmp_path).rows(EMBEDDING), open_checkpoint(folder).rows(EMBEDDING))


def test_scalars_and_empty_tensors(tmp_path: Path) -> None:
    save_file({"scalar": torch.tensor(3.0), "empty": torch.zeros(0, 4)}, tmp_path / "x.safetensors")
    file = SafetensorsFile(tmp_path / "x.safetensors")
    assert file.rows("scalar") == 3.0
    assert file.rows("empty").shape == (0, 4)


def test_a_folder_without_a_model_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no config.json, so it is not a whole model"):
        open_checkpoint(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="It holds a PEFT adapter"):
        open_checkpoint(tmp_path)
    shutil.copy(folder / "config.json", tmp_path)
    with pytest.raises(CheckpointError, match="holds a PEFT adapter, not a whole model. Merge it"):
        open_checkpoint(tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"holds no model.safetensors and no model.safetensors.index.json"):
        open_checkpoint(tmp_path)


def test_pickles_are_never_loaded(tmp_path: Path, folder: Path) -> None:
    shutil.copy(folder / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(CheckpointError, match=r"only pickled weights \(pytorch_model.bin\), which are never loaded"):
        open_checkpoint(tmp_path)


def test_a_wrong_index_is_refused(tmp_path: Path, folder: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text("{}")
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_checkpoint(tmp_path)
    index.write_text(json.dumps({"weight_map": {"model.ghost.weight": "model.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"says that 'model.ghost.weight' lies in 'model.safetensors'"):
        open_checkpoint(tmp_path).shape("model.ghost.weight")
    index.write_text(json.dumps({"weight_map": {EMBEDDING: "gone.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"There is no file .*gone.safetensors"):
        open_checkpoint(tmp_path).shape(EMBEDDING)


@pytest.mark.parametrize("source", ["./nowhere", "/nowhere/at/all", "a/b/c"])
def test_a_path_that_is_no_folder_is_no_hub_id_either(source: str) -> None:
    with pytest.raises(CheckpointError, match="is not a folder. Give a folder that save_pretrained wrote, or a Hub id"):
        open_checkpoint(source)


def test_missing_tensors_are_named(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="has no tensor 'model.ghost'"):
        open_checkpoint(folder).rows("model.ghost")
    with pytest.raises(CheckpointError, match="has no parameter 'model.ghost'"):
        open_checkpoint(tiny_llama()).shape("model.ghost")


def test_before_and_after_must_be_comparable(folder: Path) -> None:
    base = open_checkpoint(folder)

    def compare(other: torch.nn.Module, parameter: str = EMBEDDING) -> None:
        list(paired_chunks(base, ModelCheckpoint(other), parameter))

    with pytest.raises(CheckpointError, match="The vocabulary went from 64 to 70 rows"):
        compare(tiny_llama(vocabulary=70))
    with pytest.raises(CheckpointError, match=r"is torch.float32 in before .* and torch.bfloat16 in after"):
        compare(tiny_llama(dtype=torch.bfloat16))
    with pytest.raises(CheckpointError, match="'lm_head.weight' is missing in after"):
        compare(tiny_llama(tied=True), "lm_head.weight")
    with pytest.raises(CheckpointError, match="must be the same architecture and size"):
        list(paired_chunks(_Renamed(base), base, EMBEDDING))


class _Renamed(FolderCheckpoint):
    def __init__(self, other: FolderCheckpoint) -> None:
        super().__init__(other.folder)

    def shape(self, name: str) -> tuple[int, ...]:
        return (7, 5)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_files_end_in_one_error(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("damaged") / "x.safetensors"
    save_file({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}, path)
    content = bytearray(path.read_bytes())
    header = int.from_bytes(content[:8], "little")
    if data.draw(st.booleans(), label="truncate"):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        place = data.draw(st.integers(0, 7 + header))
        content[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[place]))
    path.write_bytes(content)
    message = ""
    try:
        file = SafetensorsFile(path)
        for name in file.entries:
            file.rows(name).sum()
    except CheckpointError as error:
        message = str(error)
    assert not message or str(path) in message


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, "has shape"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, "has shape"),
        ({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}, "is truncated"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, "has shape"),
        ({"a": 3}, "header cannot be read"),
        ([], "header cannot be read"),
    ],
)
def test_headers_that_contradict_the_file(tmp_path: Path, header: object, message: str) -> None:
    text = json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(CheckpointError, match=message):
        SafetensorsFile(path)


_STREAM = """
import resource, sys, torch
from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.finders.search import find_ticket
from ks_lottery.finders.select import TopK
import ks_lottery.finders.shift.ks, ks_lottery.finders.shift.magnitude, transformers, scipy.stats
tiny, before, after = sys.argv[1:]
find_ticket(tiny, tiny + "-after", selector=TopK(3))
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ticket = find_ticket(before, after, selector=TopK(3))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) // 1024, *ticket.indices["input"])
"""


def test_a_checkpoint_of_a_gigabyte_is_read_in_little_memory(tmp_path: Path, folder: Path) -> None:
    shutil.copytree(folder, tmp_path / "tiny")
    changed = load_file(folder / "model.safetensors")
    changed[EMBEDDING][:5] += 1.0
    shutil.copytree(folder, tmp_path / "tiny-after")
    save_file(changed, tmp_path / "tiny-after" / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"vocab_size": 2**17, "hidden_size": 2048}
    rows = torch.zeros(2**17, 2048)
    rows[:, ::7] = 0.5
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        if name == "after":
            rows[[5, 70_000, 2**17 - 1]] += 1.0
        save_file({EMBEDDING: rows}, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
    del rows
    command = [sys.executable, "-c", _STREAM, *(str(tmp_path / name) for name in ("tiny", "before", "after"))]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    megabytes, *found = map(int, result.stdout.split())
    assert found == [5, 70_000, 2**17 - 1]
    assert megabytes < 200
