"""Fuzz target of everything that reads a folder of weights: adapters, importers, and checkpoints."""

import json
import shutil
import warnings
from pathlib import Path

import torch

from ks_lottery.adapter.checks import require_parts
from ks_lottery.adapter.config import LotteryConfig
from ks_lottery.adapter.importers.composable_sft import FILE, read_composable_sft
from ks_lottery.adapter.importers.sft_adapter import CONFIG, WEIGHTS, read_sft_adapter
from ks_lottery.adapter.layer import RowLayer
from ks_lottery.checkpoints.inventory import pair_tensors
from ks_lottery.checkpoints.reader import FolderCheckpoint
from ks_lottery.checkpoints.safetensors_file import SafetensorsFile
from ks_lottery.errors import LotteryError
from tests.fuzz.seed_corpus import require_short, unbundle

_NAMES = (FILE, CONFIG, *WEIGHTS, "config.json", "model.safetensors", "model.safetensors.index.json")


def read(data: bytes, folder: Path) -> bool:
    """Read a bundle through every reader that its files call for; whether one of them read it.

    Raises:
        Exception: whatever is no `LotteryError`.
    """
    place = folder / "files"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name, content in unbundle(data).items():
        if name in _NAMES or name == "model-1.safetensors":
            (place / name).write_bytes(content)
    try:
        return _read(place)
    except LotteryError as error:
        require_short(error)
        return False


def _read(place: Path) -> bool:
    weights = next((place / name for name in WEIGHTS if (place / name).is_file()), None)
    if (place / CONFIG).is_file() and _is_ours(place / CONFIG):
        return _read_adapter(place)
    if (place / FILE).is_file():
        update = read_composable_sft(place / FILE, "the file")
    elif (place / CONFIG).is_file() and weights is not None:
        update = read_sft_adapter(place / CONFIG, weights, "the folder")
    else:
        return _read_checkpoint(place)
    for change in update.changes.values():
        assert len(change.index) == len(change.delta)
        assert bool(torch.isfinite(change.delta).all())
        assert not len(change.index) or change.index[0] >= 0
        assert (change.index[:-1] < change.index[1:]).all()
    return True


def _is_ours(path: Path) -> bool:
    """Whether PEFT would hand the configuration to this library; it reads the type itself."""
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(values, dict) and values.get("peft_type") == "KS_TICKET"


def _read_adapter(place: Path) -> bool:
    """Load the rows of an embedding, as PEFT does it."""
    with warnings.catch_warnings(action="ignore"):  # PEFT warns of keys that it does not know
        config = LotteryConfig.from_pretrained(str(place))
    model = torch.nn.ModuleDict({"embed": torch.nn.Embedding(64, 32)})
    require_parts(model, config)
    layer = RowLayer(model["embed"])
    for kind, (count, positions) in config.parts["embed"].items():
        layer.add_part("default", kind, count, positions)
    weights = place / WEIGHTS[0]
    if weights.is_file():
        file, prefix = SafetensorsFile(weights), "base_model.model.embed."
        tensors = {f"{name.removeprefix(prefix)}.default": file.rows(name) for name in file.entries}
        layer.load_state_dict(tensors, strict=False)
        for change in layer.changes(["default"]):
            assert len(change.index) == len(change.delta)
            layer(torch.arange(64))
    return True


def _read_checkpoint(place: Path) -> bool:
    checkpoint = FolderCheckpoint(place)
    for name in checkpoint.names():
        assert sum(len(piece) for _, piece in checkpoint.chunks(name)) == (checkpoint.shape(name) or (1,))[0]
    assert len(pair_tensors(checkpoint, FolderCheckpoint(place)).pairs) == len(checkpoint.names())
    return True


def finish(data: bytes, folder: Path) -> bytes:
    """The input as it is: nothing in these files is computed from the rest."""
    return data
