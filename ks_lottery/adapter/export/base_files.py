"""The files of a base model: where each tensor lies in them, and a copy of them to be changed."""

import fnmatch
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from ks_lottery.checkpoints.download import download
from ks_lottery.checkpoints.hub_errors import hub_errors
from ks_lottery.checkpoints.reader import FolderCheckpoint, HubCheckpoint
from ks_lottery.checkpoints.safetensors_file import SafetensorsFile
from ks_lottery.checkpoints.safetensors_header import TensorEntry
from ks_lottery.checkpoints.strict_json import strict_json_file
from ks_lottery.units.architecture import live_names

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_LEFT_OUT = (
    "*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.ckpt", "*.h5",
    "*.msgpack", "*.onnx", "*.gguf", "README.md", "trainer_state.json", ".*",
)  # fmt: skip
_COPIED_AT_ONCE = 16 * 2**20

Advance = Callable[[int], None]
"""Takes the number of bytes done since its last call."""

Progress = Callable[[int], Advance]
"""Takes the number of bytes to come, and returns what is told of those that are done."""


class BaseFiles:
    """The files of a base model on this machine; those of a repository are downloaded.

    Args:
        base: the model.

    Attributes:
        source: folder that holds them.
        weights: names of its weight files.

    Raises:
        HubError: if something has to be downloaded and cannot be.
    """

    def __init__(self, base: FolderCheckpoint) -> None:
        self._base = base
        self.source = base.folder
        index = self.source / _INDEX
        self.weights = sorted(set(strict_json_file(index)["weight_map"].values())) if index.is_file() else [_WEIGHTS]
        if isinstance(base, HubCheckpoint):
            from huggingface_hub import snapshot_download

            with hub_errors(f"download {base.name!r}"):
                snapshot_download(base.name, revision=base.revision, ignore_patterns=[*_LEFT_OUT, "*/*"])
            for file in self.weights:
                download(base.name, file, revision=base.revision)

    @cached_property
    def places(self) -> dict[str, tuple[str, TensorEntry]]:
        """Parameter name to file and place in it; both copies of tied tensors that were stored twice."""
        stored = {
            name: (file, entry)
            for file in self.weights
            for name, entry in SafetensorsFile(self.source / file).entries.items()
        }
        live = live_names(self._base.model_type, stored)
        return {live[name]: place for name, place in stored.items()}

    @property
    def num_bytes(self) -> int:
        """Bytes that `copy` copies."""
        return sum((self.source / file).stat().st_size for file in self._copied())

    def copy(self, folder: Path, progress: Progress | None = None) -> None:
        """Copy the weights and what stands beside them (configuration, tokenizer, licence), but not the README.

        Args:
            folder: an existing folder.
            progress: told of every piece of 16 MiB.
        """
        advance = None if progress is None else progress(self.num_bytes)
        for file in self._copied():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            with (self.source / file).open("rb") as read, (folder / file).open("wb") as write:
                while piece := read.read(_COPIED_AT_ONCE):
                    write.write(piece)
                    if advance is not None:
                        advance(len(piece))

    def _copied(self) -> list[str]:
        beside = [path.name for path in self.source.iterdir() if path.is_file() and not _is_left_out(path.name)]
        return sorted({*beside, *self.weights, *([_INDEX] if (self.source / _INDEX).is_file() else [])})


def _is_left_out(name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in _LEFT_OUT)
