"""What a model on the Hub consists of, read off the headers of its files: no weight is downloaded."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typing_extensions import override

from ks_lottery.checkpoints.checkpoint import Checkpoint
from ks_lottery.checkpoints.download import download
from ks_lottery.checkpoints.dtypes import TORCH_NAMES
from ks_lottery.checkpoints.hub_errors import hub_errors
from ks_lottery.checkpoints.hub_patience import patiently
from ks_lottery.checkpoints.reader import FolderCheckpoint, hub_place, open_checkpoint
from ks_lottery.errors import CheckpointError


class HubHeaders(FolderCheckpoint):
    """A Hub repository of which names, shapes and dtypes are known; a file is downloaded when values in it are read.

    Args:
        repo_id: "user/model".
        revision: branch, tag or commit.

    Raises:
        CheckpointError: if the repository has no readable config or no safetensors.
        HubError: if the Hub cannot be reached or refuses.
    """

    def __init__(self, repo_id: str, revision: str | None = None) -> None:
        config = download(repo_id, "config.json", revision=revision)
        commit = config.parent.name
        self._headers = _headers(repo_id, commit)
        super().__init__(config.parent, name=repo_id, revision=commit)

    @override
    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensor(name).shape)

    @override
    def dtype(self, name: str) -> str:
        dtype: str = self._tensor(name).dtype
        return TORCH_NAMES.get(dtype, dtype)

    @override
    def _weight_map(self) -> Mapping[str, str]:
        return dict(self._headers.weight_map)

    @override
    def _fetch(self, file: str) -> Path:
        return download(self.name, file, revision=self.revision)

    def _tensor(self, name: str) -> Any:
        if name not in self._places:
            raise CheckpointError(f"The checkpoint {self.name!r} has no tensor {name!r}.")
        file, stored = self._places[name]
        tensors = self._headers.files_metadata[file].tensors
        if stored not in tensors:
            raise CheckpointError(
                f"The index of {self.name!r} says that {stored[:200]!r} lies in {file!r}, but it does not. Ask its "
                "owner to save the model again."
            )
        return tensors[stored]


def open_headers(source: str | os.PathLike[str]) -> Checkpoint:
    """Open a model to look at its names and shapes: as `open_checkpoint`, without downloading weights.

    Args:
        source: a folder, or a Hub id ("user/model", "user/model@revision"). With HF_HUB_OFFLINE=1 the files of a
            repository are looked for in the cache.

    Raises:
        CheckpointError: if nothing readable is there.
        HubError: if the Hub cannot be reached or refuses.
    """
    from huggingface_hub import is_offline_mode

    place = hub_place(source)
    if place is None or is_offline_mode():
        return open_checkpoint(source)
    return HubHeaders(*place)


def _headers(repo_id: str, commit: str) -> Any:
    from huggingface_hub import get_safetensors_metadata
    from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError

    try:
        with hub_errors(f"read the headers of {repo_id!r} at revision {commit!r}"):
            return patiently(lambda: get_safetensors_metadata(repo_id, revision=commit))
    except (NotASafetensorsRepoError, SafetensorsParsingError) as error:
        raise CheckpointError(
            f"{repo_id!r} holds no safetensors that can be read ({error}). Use a repository with safetensors, or "
            "convert a copy with save_pretrained."
        ) from error
