"""Writing a model's folder: what safetensors reads back is what was written, in one file or in shards."""

import json
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ks_lottery.checkpoints import model_folder
from ks_lottery.checkpoints.dtypes import ITEM_BYTES
from ks_lottery.checkpoints.model_folder import OutgoingTensor, copy_beside, write_weights
from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.errors import HubError
from tests.fake_hub import FakeHub

DTYPES = ["float32", "bfloat16", "float16", "float64", "int64", "int8", "bool", "float8_e4m3fn", "complex64"]
SHAPES = [(), (3,), (2, 5), (0, 4), (2, 3, 4)]


def tensor_of(dtype: str, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    count = int(np.prod(shape)) * ITEM_BYTES[dtype]
    content = torch.randint(0, 2 if dtype == "bool" else 256, (count,), dtype=torch.uint8, generator=generator)
    return content.view(getattr(torch, dtype)).reshape(shape)


def outgoing(name: str, tensor: torch.Tensor, pieces: int = 2) -> OutgoingTensor:
    def content() -> Iterable[np.ndarray]:
        return np.array_split(tensor.reshape(-1).view(torch.uint8).numpy(), pieces)

    return OutgoingTensor(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), content)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return (one.dtype, one.shape) == (other.dtype, other.shape) and torch.equal(
        one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8)
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(DTYPES), st.sampled_from(SHAPES)), min_size=1, max_size=6))
def test_safetensors_reads_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[tuple[str, tuple[int, ...]]]
) -> None:
    folder = tmp_path_factory.mktemp("written")
    tensors = {f"layer.{i}": tensor_of(*kind, seed=i) for i, kind in enumerate(kinds)}
    write_weights(folder, [outgoing(name, tensor) for name, tensor in tensors.items()])
    read = load_file(folder / "model.safetensors")
    assert read.keys() == tensors.keys()
    assert all(same_bits(read[name], tensor) for name, tensor in tensors.items())
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_the_bytes_are_those_of_safetensors_own_writer(tmp_path: Path) -> None:
    tensors = {"a": tensor_of("float32", (3, 5)), "b": tensor_of("float32", (2,), 1)}
    write_weights(tmp_path, [outgoing(name, tensor) for name, tensor in tensors.items()])
    save_file(tensors, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    ours, theirs = ((tmp_path / name).read_bytes() for name in ("model.safetensors", "theirs.safetensors"))
    (size,) = struct.unpack("<Q", ours[:8])
    assert size % 8 == 0
    assert ours == theirs


def test_shards_with_their_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_folder, "SHARD_BYTES", 100)
    tensors = {f"t{i}": tensor_of("float32", (rows, 4), i) for i, rows in enumerate((3, 3, 1, 40, 2))}
    write_weights(tmp_path, [outgoing(name, tensor) for name, tensor in tensors.items()])
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = {name: int(file[6:11]) for name, file in index["weight_map"].items()}
    assert files == {"t0": 1, "t1": 1, "t2": 2, "t3": 3, "t4": 4}
    assert index["metadata"]["total_size"] == 49 * 16
    for name, file in index["weight_map"].items():
        assert file.endswith("-of-00004.safetensors")
        assert same_bits(load_file(tmp_path / file)[name], tensors[name])
    assert not (tmp_path / "model.safetensors").exists()


BESIDE = {
    "tokenizer.json": b"{}",
    "generation_config.json": b"[]",
    "LICENSE": b"free",
    "chat_template.jinja": b"{{ x }}",
}
NOT_BESIDE = {"README.md": b"the base", "pytorch_model.bin": b"\x80", ".hidden": b"", "original/params.json": b"{}"}


def base_files(folder: Path) -> Path:
    folder.mkdir()
    save_file({"lm_head.weight": torch.zeros(2, 2)}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "llama"}')
    for name, content in {**BESIDE, **NOT_BESIDE}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_what_stands_beside_a_folders_weights(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    copy_beside(open_checkpoint(base_files(tmp_path / "base")), tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == BESIDE


def test_what_stands_beside_a_repositorys_weights(tmp_path: Path, fake_hub: FakeHub) -> None:
    (tmp_path / "out").mkdir()
    fake_hub.add("tester/model", base_files(tmp_path / "base"))
    checkpoint = open_checkpoint("tester/model")
    copy_beside(checkpoint, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == BESIDE


def test_a_repository_that_cannot_be_listed(tmp_path: Path, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    fake_hub.add("tester/model", base_files(tmp_path / "base"))
    checkpoint = open_checkpoint("tester/model")
    fake_hub.down = 503
    with pytest.raises(HubError, match="Cannot list the files of 'tester/model': the Hub answered with status 503"):
        copy_beside(checkpoint, tmp_path / "out")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    copy_beside(checkpoint, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
