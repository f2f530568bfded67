"""Checkpoints: a live model, a folder of safetensors, or a Hub repository, behind one small interface."""

import abc
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from typing_extensions import override

from ks_lottery.checkpoints.download import download
from ks_lottery.checkpoints.safetensors_file import SafetensorsFile
from ks_lottery.errors import CheckpointError
from ks_lottery.units.architecture import live_names
from ks_lottery.units.layout import ModelLayout

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_CHUNK_BYTES = 16 * 2**20
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


class Checkpoint(abc.ABC):
    """Weights that can be read one piece of one tensor at a time.

    Attributes:
        name: what people call it: a folder, a Hub id, a model's `name_or_path`.
        revision: commit of a Hub repository, else None.
        config: the transformers configuration.
    """

    name: str
    revision: str | None = None
    config: "PretrainedConfig"

    @abc.abstractmethod
    def names(self) -> tuple[str, ...]:
        """Parameter names; tied parameters once, under the input embedding's name."""

    @abc.abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a parameter."""

    @abc.abstractmethod
    def dtype(self, name: str) -> torch.dtype:
        """Dtype that a parameter is stored in."""

    @abc.abstractmethod
    def rows(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Rows `start` to `stop` of a parameter's first dimension, without copying more than those."""

    def chunks(self, name: str, chunk_bytes: int = _CHUNK_BYTES) -> Iterator[tuple[int, torch.Tensor]]:
        """Walk over a parameter's rows.

        Args:
            name: parameter.
            chunk_bytes: upper bound of one piece, in bytes of the stored dtype; at least one row is yielded.

        Yields:
            (number of the first row, [rows, ...] tensor); the tensor is valid until the next step.
        """
        shape = self.shape(name)
        row_bytes = max(1, math.prod(shape[1:]) * self.dtype(name).itemsize)
        step = max(1, chunk_bytes // row_bytes)
        for start in range(0, shape[0], step):
            yield start, self.rows(name, start, min(start + step, shape[0]))
            self.release(name)

    def release(self, name: str) -> None:
        """Give back what reading a parameter keeps in memory, where that is possible."""
        return

    def layout(self) -> ModelLayout:
        """The model's skeleton, for granularities."""
        return ModelLayout(
            model_type=self.config.model_type,
            shapes={name: self.shape(name) for name in self.names()},
            tied=is_tied(self.config),
        )

    def num_parameters(self) -> int:
        """Number of single weights in the model, tied ones counted once."""
        return sum(math.prod(self.shape(name)) for name in self.names())


class ModelCheckpoint(Checkpoint):
    """The weights of a live `transformers` model, as they are now."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.config = model.config
        self.name = str(getattr(self.config, "name_or_path", "") or type(model).__name__)
        self._parameters = dict(model.named_parameters())

    @override
    def names(self) -> tuple[str, ...]:
        return tuple(self._parameters)

    @override
    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._parameter(name).shape)

    @override
    def dtype(self, name: str) -> torch.dtype:
        return self._parameter(name).dtype

    @override
    def rows(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        parameter = self._parameter(name).detach()
        return parameter if parameter.dim() == 0 else parameter[start:stop]

    def _parameter(self, name: str) -> torch.Tensor:
        if name not in self._parameters:
            raise CheckpointError(f"The model {self.name!r} has no parameter {name!r}.")
        return self._parameters[name]


class FolderCheckpoint(Checkpoint):
    """Safetensors in a folder, sharded or not, with their `config.json`.

    Args:
        folder: what `save_pretrained` wrote.
        name: how to call it; the folder's path if None.
        revision: commit that the folder is a copy of.

    Raises:
        CheckpointError: if the folder has no config or no safetensors, or its index names missing files.
    """

    def __init__(self, folder: str | os.PathLike[str], name: str | None = None, revision: str | None = None) -> None:
        self.folder = Path(folder)
        self.name = name or str(folder)
        self.revision = revision
        self.config = _read_config(self.folder)
        self._files: dict[str, SafetensorsFile] = {}
        self._places = self._locate()

    @override
    def names(self) -> tuple[str, ...]:
        return tuple(self._places)

    @override
    def shape(self, name: str) -> tuple[int, ...]:
        file, stored = self._find(name)
        return file.entries[stored].shape

    @override
    def dtype(self, name: str) -> torch.dtype:
        file, stored = self._find(name)
        return file.entries[stored].dtype

    @override
    def rows(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        file, stored = self._find(name)
        return file.rows(stored, start, stop)

    @override
    def release(self, name: str) -> None:
        file, stored = self._find(name)
        file.release(stored)

    def _locate(self) -> dict[str, tuple[str, str]]:
        """Live parameter name to (file, stored name)."""
        if (self.folder / _INDEX).is_file():
            try:
                weight_map = json.loads((self.folder / _INDEX).read_text(encoding="utf-8"))["weight_map"]
            except (ValueError, KeyError, TypeError) as error:
                raise CheckpointError(f"{_INDEX} in {self.name!r} cannot be read ({error}). Save it again.") from error
        elif (self.folder / _WEIGHTS).is_file():
            weight_map = dict.fromkeys(self._open(_WEIGHTS).entries, _WEIGHTS)
        else:
            raise CheckpointError(self._no_weights())
        live = live_names(self.config.model_type, weight_map)
        places = {live[stored]: (weight_map[stored], stored) for stored in sorted(weight_map)}
        if is_tied(self.config):
            places.pop("lm_head.weight", None)
        return places

    def _no_weights(self) -> str:
        if (self.folder / "adapter_config.json").is_file():
            return (
                f"{self.name!r} holds a PEFT adapter, not a whole model. Merge it into its base first: "
                "AutoPeftModelForCausalLM.from_pretrained(...).merge_and_unload().save_pretrained(...)."
            )
        pickles = sorted(path.name for pattern in _PICKLES for path in self.folder.glob(pattern))
        if pickles:
            return (
                f"{self.name!r} holds only pickled weights ({', '.join(pickles[:3])}), which are never loaded because "
                "a pickle can run code. Convert it once where you trust it: "
                "AutoModelForCausalLM.from_pretrained(...).save_pretrained(folder)."
            )
        return f"{self.name!r} holds no {_WEIGHTS} and no {_INDEX}. Save the model there with save_pretrained."

    def _find(self, name: str) -> tuple[SafetensorsFile, str]:
        if name not in self._places:
            raise CheckpointError(f"The checkpoint {self.name!r} has no tensor {name!r}.")
        file, stored = self._places[name]
        opened = self._open(file)
        if stored not in opened.entries:
            raise CheckpointError(
                f"{_INDEX} of {self.name!r} says that {stored!r} lies in {file!r}, but it does not, or in a dtype that "
                "cannot be read. Download or save the model again."
            )
        return opened, stored

    def _open(self, file: str) -> SafetensorsFile:
        if file not in self._files:
            self._files[file] = SafetensorsFile(self._fetch(file))
        return self._files[file]

    def _fetch(self, file: str) -> Path:
        return self.folder / file


class HubCheckpoint(FolderCheckpoint):
    """Safetensors of a Hub repository; a shard is downloaded when a tensor in it is first read."""

    def __init__(self, repo_id: str, revision: str | None = None) -> None:
        config = download(repo_id, "config.json", revision=revision)
        self._repo_id = repo_id
        self._revision = revision
        commit = config.parent.name
        for file in (_INDEX, _WEIGHTS):
            if download(repo_id, file, revision=revision, missing_ok=True) is not None:
                break
        super().__init__(config.parent, name=repo_id, revision=commit)

    def _fetch(self, file: str) -> Path:
        return download(self._repo_id, file, revision=self._revision)


def open_checkpoint(source: "str | os.PathLike[str] | torch.nn.Module | Checkpoint") -> Checkpoint:
    """Open weights for reading.

    Args:
        source: a live transformers model, a folder, a Hub id ("user/model", "user/model@revision"), or a checkpoint,
            which is passed through.

    Raises:
        CheckpointError: if nothing readable is there.
        HubError: if the Hub cannot be reached or refuses.
    """
    if isinstance(source, Checkpoint):
        return source
    if isinstance(source, torch.nn.Module):
        return ModelCheckpoint(source)
    path = Path(source)
    if path.is_dir():
        return FolderCheckpoint(path)
    text = os.fspath(source)
    if path.exists() or path.is_absolute() or text.startswith((".", "~")) or text.count("/") > 1:
        raise CheckpointError(
            f"{text!r} is not a folder. Give a folder that save_pretrained wrote, or a Hub id such as 'user/model'."
        )
    repo_id, _, revision = text.partition("@")
    return HubCheckpoint(repo_id, revision or None)


def is_tied(config: Any) -> bool:
    """Whether a configuration makes the output head the input embedding."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return bool(getattr(text, "tie_word_embeddings", getattr(config, "tie_word_embeddings", False)))


def _read_config(folder: Path) -> "PretrainedConfig":
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        hint = " It holds a PEFT adapter." if (folder / "adapter_config.json").is_file() else ""
        raise CheckpointError(
            f"{str(folder)!r} has no config.json, so it is not a whole model.{hint} Give the folder that "
            "model.save_pretrained wrote."
        )
    return AutoConfig.from_pretrained(folder)
