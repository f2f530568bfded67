"""What an export carrier is, and the registry of them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor

from ks_lottery.adapter.tuned import Tuned
from ks_lottery.registry import Registry


@dataclass(frozen=True)
class Export:
    """What is exported.

    Attributes:
        tuned: the values.
        header: the keys that every `adapter_config.json` has: base model, revision, task type.
        model: the live model; None while it is being saved, when only the values are at hand.
    """

    tuned: Tuned
    header: Mapping[str, Any]
    model: PeftModel | None = None


class Carrier(Protocol):
    """A file format that needs nothing but `peft` or `transformers` to load."""

    def rank(self, export: Export) -> int | None:
        """The order in which `to="auto"` tries carriers, lowest first; None if it never tries this one."""
        ...

    def refusal(self, export: Export) -> str | None:
        """Why this carrier cannot hold these values exactly, or None if it can."""
        ...

    def write(self, export: Export, folder: Path) -> None:
        """Write the files into an existing folder."""
        ...


CARRIERS: Registry[type[Carrier]] = Registry("export carrier", "ks_lottery.adapter.export")


def write_adapter(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors`.

    The configuration holds only keys that every supported PEFT knows: a newer key would make an older PEFT warn.
    """
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / "adapter_config.json").write_text(text, encoding="utf-8")
    distinct = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(distinct, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def foreign_ties(tuned: Tuned) -> str | None:
    """Why plain PEFT would not drive every module that shares a matrix, or None if it would."""
    for matrix in tuned.matrices:
        if matrix.has_bias:
            return f"{matrix.module!r} has a bias, which PEFT's token layer drops from its output"
        if set(matrix.tied_modules) != set(matrix.followed_by_peft):
            return (
                f"{matrix.module!r} shares its matrix with {', '.join(matrix.tied_modules) or 'no other module'}, "
                f"while PEFT's token layer would follow it in {', '.join(matrix.followed_by_peft) or 'no other module'}"
            )
    return None
