"""Writing a model's folder piece by piece: weights of any size in bounded memory, and the files that go with them."""

import fnmatch
import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ks_lottery.checkpoints.download import download
from ks_lottery.checkpoints.dtypes import ITEM_BYTES, TORCH_NAMES
from ks_lottery.checkpoints.hub_errors import hub_errors
from ks_lottery.checkpoints.reader import FolderCheckpoint, HubCheckpoint
from ks_lottery.checkpoints.writer import write_json

SHARD_BYTES = 50 * 10**9  # of one file at most, unless one tensor alone is larger

_FILE_NAMES = {name: code for code, name in TORCH_NAMES.items()}
_NOT_BESIDE = (
    "*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.ckpt", "*.h5",
    "*.msgpack", "*.onnx", "*.gguf", "config.json", "README.md", "trainer_state.json", ".*",
)  # fmt: skip


@dataclass(frozen=True)
class OutgoingTensor:
    """A tensor on its way into a file.

    Attributes:
        name: what it is called there.
        dtype: a key of `dtypes.ITEM_BYTES`.
        shape: its shape.
        pieces: returns its content in order: arrays whose bytes, one after the other, are those of the tensor.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: Callable[[], Iterable[NDArray[Any]]]

    @property
    def num_bytes(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def write_weights(folder: Path, tensors: Iterable[OutgoingTensor]) -> None:
    """Write tensors as transformers reads them: `model.safetensors`, or shards of at most 50 GB with their index.

    Args:
        folder: an existing folder.
        tensors: in the order of the files.

    Cost:
        Memory for one piece.
    """
    shards = list(_shards(tensors))
    if len(shards) == 1:
        _write_file(folder / "model.safetensors", shards[0])
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_file(folder / file, shard)
        weight_map |= {tensor.name: file for tensor in shard}
    size = sum(tensor.num_bytes for shard in shards for tensor in shard)
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": weight_map})


def copy_beside(checkpoint: FolderCheckpoint, folder: Path) -> None:
    """Copy what stands beside a model's weights and config.json: tokenizer, generation config, licence.

    Its README is not copied, which describes that model and no other; nor are folders. With HF_HUB_OFFLINE=1 what the
    cache holds of a repository counts as all of it.

    Raises:
        HubError: if the files have to be downloaded and cannot be.
    """
    if isinstance(checkpoint, HubCheckpoint):
        _fetch_beside(checkpoint)
    for path in checkpoint.folder.iterdir():
        if path.is_file() and _is_beside(path.name):
            shutil.copyfile(path, folder / path.name)


def _fetch_beside(checkpoint: HubCheckpoint) -> None:
    from huggingface_hub import is_offline_mode, list_repo_files

    if is_offline_mode():
        return
    with hub_errors(f"list the files of {checkpoint.name!r}"):
        files = list_repo_files(checkpoint.name, revision=checkpoint.revision)
    for file in files:
        if "/" not in file and _is_beside(file):
            download(checkpoint.name, file, revision=checkpoint.revision)


def _is_beside(file: str) -> bool:
    return not any(fnmatch.fnmatch(file, pattern) for pattern in _NOT_BESIDE)


def _shards(tensors: Iterable[OutgoingTensor]) -> Iterator[list[OutgoingTensor]]:
    shard: list[OutgoingTensor] = []
    size = 0
    for tensor in tensors:
        if shard and size + tensor.num_bytes > SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append(tensor)
        size += tensor.num_bytes
    yield shard


def _write_file(path: Path, tensors: Sequence[OutgoingTensor]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        begin, end = end, end + tensor.num_bytes
        header[tensor.name] = {
            "dtype": _FILE_NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]
        }  # fmt: skip
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            before = file.tell()
            for piece in tensor.pieces():
                file.write(np.ascontiguousarray(piece).tobytes())
            assert file.tell() - before == tensor.num_bytes, tensor.name
