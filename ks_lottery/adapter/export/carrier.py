"""What an export carrier is, and the registry of them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor

from ks_lottery.adapter.tuned import PEFT_PREFIX, Tuned, TunedModule
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


def whole_modules(tuned: Tuned, modules: Iterable[TunedModule]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the tensors that hold modules whole: `modules_to_save`.

    Args:
        tuned: brings the modules that the adapter trains whole.
        modules: others that are to be written whole, with their changes.
    """
    names, tensors = list(tuned.module_names), dict(tuned.whole_modules)
    for module in modules:
        names.append(module.name)
        tensors |= {f"{PEFT_PREFIX}{module.name}.{leaf}": value for leaf, value in module.whole().items()}
    return ({"modules_to_save": names} if names else {}), tensors


def token_refusal(module: TunedModule) -> str | None:
    """Why PEFT's token layer would not do what rows of this module do, or None if it would."""
    if module.biased:
        return f"{module.biased[0]!r} has a bias, which PEFT's token layer drops from its output"
    return tie_refusal(module, module.followed_by_peft)


def tie_refusal(module: TunedModule, followed: Iterable[str] = ()) -> str | None:
    """Why plain PEFT would not drive every module that shares a matrix, or None if it would.

    Args:
        module: one of the modules.
        followed: names of those that PEFT drives with it.
    """
    followed = set(followed)
    if set(module.tied_modules) == followed:
        return None
    return (
        f"{module.name!r} shares its matrix with {_names(module.tied_modules)}, while plain PEFT would follow it in "
        f"{_names(followed)}"
    )


def name_refusal(modules: Iterable[TunedModule]) -> str | None:
    """Why PEFT would take other modules for these, or None if it would not."""
    for module in modules:
        if module.namesakes:
            return (
                f"PEFT finds modules by the end of their name, and would take {module.namesakes[0]!r} for "
                f"{module.name!r}"
            )
    return None


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "no other module"
