"""Opening checkpoints: a live model, a folder of safetensors, or a Hub repository, behind one small interface."""

import os
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from ks_lottery.checkpoints.checkpoint import Checkpoint
from ks_lottery.checkpoints.config_file import ConfigFile
from ks_lottery.checkpoints.download import download
from ks_lottery.checkpoints.live_model import ModelCheckpoint
from ks_lottery.checkpoints.safetensors_file import SafetensorsFile
from ks_lottery.checkpoints.strict_json import strict_json_file
from ks_lottery.errors import CheckpointError
from ks_lottery.stats.floats import FloatBits
from ks_lottery.units.architecture import architecture, architectures, live_names

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

__all__ = ["Checkpoint", "FolderCheckpoint", "HubCheckpoint", "ModelCheckpoint", "open_checkpoint"]

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


class FolderCheckpoint(Checkpoint):
    """Safetensors in a folder, sharded or not, with their `config.json`.

    Args:
        folder: what `save_pretrained` wrote.
        name: how to call it; the folder's path if None.
        revision: commit that the folder is a copy of.

    Raises:
        CheckpointError: if the folder has no readable config or no safetensors, or its index is none or names files
            outside the folder.
    """

    def __init__(self, folder: str | os.PathLike[str], name: str | None = None, revision: str | None = None) -> None:
        self.folder = Path(folder)
        self.name = name or str(folder)
        self.revision = revision
        self._config = ConfigFile(self.folder)
        self._files: dict[str, SafetensorsFile] = {}
        self._places = self._locate()

    @property
    @override
    def config(self) -> "PretrainedConfig":
        return self._config.full

    @property
    @override
    def model_type(self) -> str:
        return self._config.model_type

    @property
    @override
    def tied(self) -> bool:
        return self._config.tied

    @override
    def names(self) -> tuple[str, ...]:
        return tuple(self._places)

    @override
    def shape(self, name: str) -> tuple[int, ...]:
        file, stored = self.find(name)
        return file.entries[stored].shape

    @override
    def dtype(self, name: str) -> str:
        file, stored = self.find(name)
        return file.entries[stored].dtype

    @override
    def bits(self, name: str, start: int = 0, stop: int | None = None) -> FloatBits:
        file, stored = self.find(name)
        return file.bits(stored, start, stop)

    @override
    def rows(self, name: str, start: int = 0, stop: int | None = None) -> "torch.Tensor":
        file, stored = self.find(name)
        return file.rows(stored, start, stop)

    @override
    def release(self, name: str) -> None:
        file, stored = self.find(name)
        file.release(stored)

    def _locate(self) -> dict[str, tuple[str, str]]:
        """Live parameter name to (file, stored name)."""
        weight_map = self._weight_map()
        places: dict[str, tuple[str, str]] = {}
        for stored, live in sorted(live_names(self.model_type, weight_map).items()):
            if live in places:
                raise CheckpointError(
                    f"{self.name!r} stores {places[live][1][:200]!r} and {stored[:200]!r}, which are both "
                    f"{live[:200]!r} of a {self.model_type!r} model. Save the model again with save_pretrained."
                )
            places[live] = (weight_map[stored], stored)
        if self.tied:
            known = self.model_type in architectures()
            places.pop(architecture(self.model_type).output_head if known else "lm_head.weight", None)
        return places

    def _weight_map(self) -> Mapping[str, str]:
        """Stored name to file."""
        if (self.folder / _INDEX).is_file():
            return self._read_index()
        if (self.folder / _WEIGHTS).is_file():
            return dict.fromkeys(self._open(_WEIGHTS).entries, _WEIGHTS)
        raise CheckpointError(self._no_weights())

    def _read_index(self) -> dict[str, str]:
        """Stored name to file, by the index of a sharded checkpoint."""
        try:
            index = strict_json_file(self.folder / _INDEX)
            weight_map = index.get("weight_map") if isinstance(index, dict) else None
            if not isinstance(weight_map, dict):
                raise ValueError("it has no object 'weight_map'")
            for stored, file in weight_map.items():
                if not _is_weights_inside(file):
                    raise ValueError(
                        f"it puts {stored[:200]!r} into {str(file)[:200]!r}, which is no .safetensors file inside the "
                        "folder"
                    )
        except ValueError as error:
            raise CheckpointError(
                f"{_INDEX} in {self.name!r} cannot be read ({error}). Download or save the model again."
            ) from error
        return weight_map

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

    def find(self, name: str) -> tuple[SafetensorsFile, str]:
        """The file that holds a parameter, and the parameter's name in it.

        Raises:
            CheckpointError: if there is no such parameter, or its file is missing or damaged.
            HubError: if its file has to be downloaded and cannot be.
        """
        if name not in self._places:
            raise CheckpointError(f"The checkpoint {self.name!r} has no tensor {name!r}.")
        file, stored = self._places[name]
        opened = self._open(file)
        if stored not in opened.entries:
            raise CheckpointError(
                f"{_INDEX} of {self.name!r} says that {stored[:200]!r} lies in {file!r}, but it does not. Download or "
                "save the model again."
            )
        return opened, stored

    def _open(self, file: str) -> SafetensorsFile:
        if file not in self._files:
            self._files[file] = SafetensorsFile(self._fetch(file))
        return self._files[file]

    def _fetch(self, file: str) -> Path:
        return self.folder / file


class HubCheckpoint(FolderCheckpoint):
    """Safetensors of a Hub repository; a shard is downloaded when a tensor in it is first read.

    All files are of one commit, also when the branch moves on in between.
    """

    def __init__(self, repo_id: str, revision: str | None = None) -> None:
        config = download(repo_id, "config.json", revision=revision)
        commit = config.parent.name
        for file in (_INDEX, _WEIGHTS):
            if download(repo_id, file, revision=commit, missing_ok=True) is not None:
                break
        self._repo_id = repo_id
        super().__init__(config.parent, name=repo_id, revision=commit)

    @override
    def _fetch(self, file: str) -> Path:
        return download(self._repo_id, file, revision=self.revision)


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
    if not isinstance(source, str | os.PathLike):
        return ModelCheckpoint(source)
    place = hub_place(source)
    return FolderCheckpoint(source) if place is None else HubCheckpoint(*place)


def hub_place(source: str | os.PathLike[str]) -> tuple[str, str | None] | None:
    """What a text means: Hub id and revision ("user/model@revision"), or None for a folder.

    Raises:
        CheckpointError: if it is no folder and can be no Hub id.
    """
    path = Path(source)
    if path.is_dir():
        return None
    text = os.fspath(source)
    if path.exists() or path.is_absolute() or text.startswith((".", "~")) or text.count("/") > 1:
        raise CheckpointError(
            f"{text!r} is not a folder. Give a folder that save_pretrained wrote, or a Hub id such as 'user/model'."
        )
    repo_id, _, revision = text.partition("@")
    return repo_id, revision or None


def _is_weights_inside(file: Any) -> bool:
    """Whether this is the name of a safetensors file that cannot lead out of its folder on any system."""
    if not isinstance(file, str) or not file.endswith(".safetensors") or "\0" in file:
        return False
    path = PureWindowsPath(file)
    return not path.anchor and ".." not in path.parts
