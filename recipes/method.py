"""What can be tested: a base model, or one that was tuned, and what it cost."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ks_lottery.checkpoints.safetensors_file import SafetensorsFile
from ks_lottery.stats.floats import FORMATS


@dataclass(frozen=True)
class Method:
    """Something that can be tested.

    Attributes:
        name: row of the score table.
        load: makes the model.
        identity: fingerprint of everything that decided it.
        trained: what training cost and chose; None if nothing was trained.
        folder: its finished stage, or None.
    """

    name: str
    load: Callable[[], Any]
    identity: str
    trained: dict[str, Any] | None = None
    folder: Path | None = None


def saved_size(folder: Path) -> dict[str, int]:
    """Trained weights and bytes of a finished training, read off its files."""
    adapter = folder / "adapter" / "adapter_model.safetensors"
    whole = folder / ("probe/after" if (folder / "probe").is_dir() else "model")
    files = [adapter] if adapter.exists() else sorted(whole.glob("trained-*.safetensors"))
    tensors = [entry for file in files for entry in SafetensorsFile(file).entries.values()]
    return {
        "trainable": sum(math.prod(tensor.shape) for tensor in tensors if tensor.dtype in FORMATS),
        "adapter_bytes": sum(file.stat().st_size for file in files),
    }


def was_begun(folder: Path) -> bool:
    """Whether a killed attempt left something to go on from, so that time and memory of the whole are not known."""
    return (folder / "probe" / "after").is_dir() or any(folder.glob("**/checkpoint-*"))


def slug(name: str) -> str:
    """A name as a folder is called."""
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())
