"""A saved adapter, read from its two files without a model."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from peft import PeftConfig
from safetensors import safe_open
from torch import Tensor

from ks_lottery.adapter.overlap import columns_outside
from ks_lottery.adapter.parts import BIAS, COLUMNS, ENTRIES, ROWS, PartKind
from ks_lottery.adapter.peft_type import KS_TICKET
from ks_lottery.adapter.rows import RowChange
from ks_lottery.adapter.tuned import PEFT_PREFIX
from ks_lottery.checkpoints.download import download
from ks_lottery.errors import AdapterError

_WEIGHTS = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
_KINDS = (ROWS, COLUMNS, ENTRIES, BIAS)


@dataclass(frozen=True)
class SavedChange:
    """What an adapter changes along one dimension of one parameter.

    Attributes:
        parameters: its name, then the names of others that share its values.
        kind: which slices or values.
        change: positions and deltas.
    """

    parameters: tuple[str, ...]
    kind: PartKind
    change: RowChange


class SavedAdapter:
    """The folder or Hub repository of a ticket adapter.

    Args:
        source: path, or Hub id "user/name".

    Attributes:
        name: `source`, for messages.
        folder: where the files are on this machine.
        config: the adapter's configuration.

    Raises:
        AdapterError: if it is no ticket adapter, or its weights are no safetensors.
        HubError: if it has to be downloaded and cannot be.
    """

    def __init__(self, source: str | os.PathLike[str]) -> None:
        from ks_lottery.adapter.config import LotteryConfig

        self.name = os.fspath(source)
        local = Path(source)
        self.folder = local if local.exists() else download(self.name, _CONFIG).parent
        if not (self.folder / _CONFIG).is_file():
            raise AdapterError(f"{self.name!r} holds no {_CONFIG}. Give the folder that model.save_pretrained wrote.")
        config = PeftConfig.from_pretrained(str(self.folder))
        if not isinstance(config, LotteryConfig):
            kind = getattr(config.peft_type, "value", config.peft_type)
            raise AdapterError(
                f"{self.name!r} holds an adapter of type {kind}; export_ticket exports {KS_TICKET.value}."
            )
        self.config: LotteryConfig = config
        if not local.exists():
            download(self.name, _WEIGHTS, revision=self.folder.name)
        elif not (self.folder / _WEIGHTS).is_file():
            raise AdapterError(f"{self.name!r} holds no {_WEIGHTS}. Save the adapter again with model.save_pretrained.")

    def changes(self) -> Iterator[SavedChange]:
        """What is changed in parts, one parameter after the other; rows before columns before single weights."""
        with safe_open(self.folder / _WEIGHTS, framework="pt") as file:
            for module, parts in self.config.parts.items():
                prefix = f"{PEFT_PREFIX}{module}."
                for kind in _KINDS:
                    if kind not in parts:
                        continue
                    change = RowChange(*(file.get_tensor(f"{prefix}{name}") for name in (kind.index, kind.values)))
                    if kind == COLUMNS and ROWS in parts:
                        change = columns_outside(change, file.get_tensor(f"{prefix}{ROWS.index}"))
                    sharing = self.config.tied_modules.get(module, ()) if kind.parameter == "weight" else ()
                    names = tuple(f"{own}.{kind.parameter}" for own in (module, *sharing))
                    yield SavedChange(names, kind, change)

    def whole(self) -> Mapping[str, Tensor]:
        """Tensors of the modules that the adapter trains whole, by the name of the parameter."""
        parts = tuple(name for kind in _KINDS for name in (kind.index, kind.values))
        with safe_open(self.folder / _WEIGHTS, framework="pt") as file:
            names = [name for name in file.keys() if not name.endswith(parts)]  # noqa: SIM118
            return {name.removeprefix(PEFT_PREFIX): file.get_tensor(name) for name in names}
