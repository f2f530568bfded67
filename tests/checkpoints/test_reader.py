"""Live models, folders and shards read alike; damaged ones end in one clear error."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ks_lottery.checkpoints.reader import FolderCheckpoint, HubCheckpoint, open_checkpoint
from ks_lottery.errors import CheckpointError
from ks_lottery.stats.floats import bits_of
from tests.fake_hub import FakeHub
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
        assert live.dtype(name) == stored.dtype(name) == str(dtype).removeprefix("torch.")
        assert torch.equal(live.rows(name), stored.rows(name))
        expected = bits_of(live.rows(name))
        for checkpoint in (live, stored):
            assert np.array_equal(checkpoint.bits(name).array, expected.array)
            starts, pieces = zip(*checkpoint.chunks(name, chunk_bytes=200), strict=True)
            assert np.array_equal(np.concatenate([piece.array for piece in pieces]), expected.array)
            assert {piece.dtype for piece in pieces} == {expected.dtype}
            assert starts == tuple(np.cumsum([0, *map(len, pieces)])[:-1])
    assert torch.equal(stored.rows(EMBEDDING, 3, 7), live.rows(EMBEDDING, 3, 7))
    assert np.array_equal(stored.bits(EMBEDDING, -5).array, live.bits(EMBEDDING, -5).array)


def test_writing_to_rows_never_reaches_the_file(folder: Path) -> None:
    before = load_file(folder / "model.safetensors")[EMBEDDING]
    open_checkpoint(folder).rows(EMBEDDING).zero_()
    with pytest.raises(ValueError, match="read-only"):
        open_checkpoint(folder).bits(EMBEDDING).array[:] = 0
    assert torch.equal(load_file(folder / "model.safetensors")[EMBEDDING], before)


def test_chunks_of_scalars_empty_tensors_and_integers(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "config.json", tmp_path)
    tensors = {"scalar": torch.tensor(3.0), "empty": torch.zeros(4, 0), "integers": torch.arange(3)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    stored = open_checkpoint(tmp_path)
    assert [(start, piece.values().tolist()) for start, piece in stored.chunks("scalar")] == [(0, [3.0])]
    assert list(stored.chunks("empty")) == []
    with pytest.raises(CheckpointError, match="'integers' in .* is int64, which is not compared as floats"):
        list(stored.chunks("integers"))


def test_parameters_are_found_in_their_files(folder: Path) -> None:
    stored = open_checkpoint(folder)
    assert isinstance(stored, FolderCheckpoint)
    file, name = stored.find(EMBEDDING)
    assert (file.path, name) == (folder / "model.safetensors", EMBEDDING)


def test_the_layout_counts_layers(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "config.json", tmp_path)
    names = [f"model.layers.{number}.mlp.up_proj.weight" for number in (0, 1, 2, 10, 11)]
    save_file({name: torch.zeros(1) for name in names}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert list(open_checkpoint(tmp_path).layout().shapes) == names


def test_the_layout_knows_the_configuration(folder: Path) -> None:
    live, stored = open_checkpoint(tiny_llama()).layout(), open_checkpoint(folder).layout()
    assert live == stored
    assert list(live.shapes) == list(stored.shapes)
    assert live.config()["num_attention_heads"] == stored.config()["num_attention_heads"] == 4


def test_a_live_model_must_have_its_values() -> None:
    with torch.device("meta"):
        model = tiny_llama()
    assert open_checkpoint(model).shape(EMBEDDING) == (64, 32)
    with pytest.raises(CheckpointError, match="is on the meta device and has no values. Load the model without"):
        open_checkpoint(model).bits(EMBEDDING)
    model = tiny_llama()
    model.register_parameter("codes", torch.nn.Parameter(torch.zeros(4, 8, dtype=torch.int8), requires_grad=False))
    with pytest.raises(CheckpointError, match="'codes' in .* is int8, which is not compared as floats"):
        open_checkpoint(model).bits("codes")
    with pytest.raises(CheckpointError, match="A Linear holds no weights that can be read here"):
        open_checkpoint(torch.nn.Linear(2, 2))


def test_files_without_the_base_models_prefix_are_read(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "config.json", tmp_path)
    tensors = {name.removeprefix("model."): value for name, value in load_file(folder / "model.safetensors").items()}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert sorted(open_checkpoint(tmp_path).names()) == sorted(open_checkpoint(folder).names())
    assert torch.equal(open_checkpoint(tmp_path).rows(EMBEDDING), open_checkpoint(folder).rows(EMBEDDING))


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


def with_index(folder: Path, target: Path, index: object) -> Path:
    shutil.copytree(folder, target, dirs_exist_ok=True)
    text = index if isinstance(index, bytes) else json.dumps(index).encode()
    (target / "model.safetensors.index.json").write_bytes(text)
    return target


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "has no object 'weight_map'"),
        ([], "has no object 'weight_map'"),
        ({"weight_map": [EMBEDDING]}, "has no object 'weight_map'"),
        (b"{", "Expecting property name"),
        (b"\xff", "can't decode byte 0xff"),
        (b'{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}', "it names 'a' twice"),
        (b"[" * 100_000, "nested too deeply"),
        *(
            ({"weight_map": {EMBEDDING: file}}, "which is no .safetensors file inside the folder")
            for file in (
                "../x.safetensors", "shards/../../x.safetensors", "/etc/x.safetensors", "C:\\x.safetensors",
                "..\\x.safetensors", "//host/x.safetensors", "x.bin", "x.safetensors\0", "", 3, None, ["x.safetensors"],
            )
        ),
    ],
)  # fmt: skip
def test_a_wrong_index_is_refused(tmp_path: Path, folder: Path, index: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape(message)) as caught:
        open_checkpoint(with_index(folder, tmp_path, index))
    assert str(tmp_path) in str(caught.value)
    assert "Download or save the model again" in str(caught.value)


def test_an_index_that_promises_too_much(tmp_path: Path, folder: Path) -> None:
    index = {"weight_map": {"model.ghost.weight": "model.safetensors", EMBEDDING: "gone.safetensors"}}
    stored = open_checkpoint(with_index(folder, tmp_path, index))
    with pytest.raises(CheckpointError, match=r"says that 'model.ghost.weight' lies in 'model.safetensors'"):
        stored.shape("model.ghost.weight")
    with pytest.raises(CheckpointError, match=r"There is no file .*gone.safetensors"):
        stored.shape(EMBEDDING)


def test_shards_may_be_links_and_lie_in_a_subfolder(tmp_path: Path, folder: Path) -> None:
    shutil.copy(folder / "config.json", tmp_path)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "a.safetensors").symlink_to(folder / "model.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {EMBEDDING: "shards/a.safetensors"}})
    )
    stored, whole = open_checkpoint(tmp_path), open_checkpoint(folder)
    assert np.array_equal(stored.bits(EMBEDDING).array, whole.bits(EMBEDDING).array)


def test_one_parameter_under_two_names_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt_neox"}))
    tensors = {name: torch.zeros(4, 8) for name in ("gpt_neox.embed_in.weight", "embed_out.weight", "lm_head.weight")}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="stores 'embed_out.weight' and 'lm_head.weight', which are both 'lm_h"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("source", ["./nowhere", "/nowhere/at/all", "a/b/c"])
def test_a_path_that_is_no_folder_is_no_hub_id_either(source: str) -> None:
    with pytest.raises(CheckpointError, match="is not a folder. Give a folder that save_pretrained wrote, or a Hub id"):
        open_checkpoint(source)


def test_missing_tensors_are_named(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="has no tensor 'model.ghost'"):
        open_checkpoint(folder).rows("model.ghost")
    with pytest.raises(CheckpointError, match="has no parameter 'model.ghost'"):
        open_checkpoint(tiny_llama()).shape("model.ghost")


def test_shards_of_a_repository_are_of_one_commit_and_come_when_they_are_needed(
    fake_hub: FakeHub, tmp_path: Path
) -> None:
    tiny_llama().save_pretrained(tmp_path / "first", max_shard_size="10KB")
    tiny_llama(seed=1).save_pretrained(tmp_path / "second", max_shard_size="10KB")
    repository = fake_hub.add("tester/model", tmp_path / "first")
    first = repository.branches["main"]
    stored = open_checkpoint("tester/model")
    assert isinstance(stored, HubCheckpoint)
    assert (stored.name, stored.revision, stored.model_type) == ("tester/model", first, "llama")
    assert not [path for _, path in fake_hub.requests if "-of-" in path]
    second = {path.name: path.read_bytes() for path in (tmp_path / "second").iterdir()}
    repository.commit("main", second, "other weights under the same names")
    live = open_checkpoint(tiny_llama())
    for name in ("lm_head.weight", EMBEDDING):
        assert np.array_equal(stored.bits(name).array, live.bits(name).array)
    assert stored.name == "tester/model"
    assert open_checkpoint(f"tester/model@{first}").revision == first
    assert open_checkpoint("tester/model").revision == repository.branches["main"] != first


_STREAM = """
import pathlib, re, sys
from ks_lottery.finders.search import find_ticket
from ks_lottery.finders.select import TopK
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) // 1024
tiny, before, after = sys.argv[1:]
find_ticket(tiny, tiny + "-after", selector=TopK(3))
start = peak()
ticket = find_ticket(before, after, selector=TopK(3))
print(start, peak(), *ticket.indices["input"])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from Linux' /proc")
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
    start, peak, *found = map(int, result.stdout.split())
    assert found == [5, 70_000, 2**17 - 1]
    assert peak - start < 200
    assert peak < 300
