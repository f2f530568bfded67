"""Parts: which values of a layer's parameters an adapter changes, and the layer that holds and merges them.

A part is a choice along one dimension of one parameter: rows or columns of a matrix, single values of a matrix, single
values of a vector. A slice of it, or a single value, is changed by a *delta*: what is tuned is
`pretrained value + delta`, summed in float32 (or wider) and rounded once to the dtype of the parameter.
"""

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn

from ks_lottery.adapter.rows import RowChange, add_changes, union_index, wide_dtype
from ks_lottery.adapter.saved import require_index, require_values
from ks_lottery.checkpoints.live_model import full_shape
from ks_lottery.errors import AdapterError

_LARGEST_INT32 = 2**31 - 1


@dataclass(frozen=True, slots=True)
class PartKind:
    """A way to choose values of one parameter of a layer.

    Attributes:
        parameter: "weight" or "bias".
        dim: the dimension of the parameter that positions count along; None: they count into the flattened parameter.
        values: attribute of the layer that holds, by adapter name, the deltas: a parameter of [k, ...] float32.
        index: attribute that holds, by adapter name, the [k] sorted positions.
    """

    parameter: str
    dim: int | None
    values: str
    index: str


ROWS = PartKind("weight", 0, "ks_ticket_delta", "ks_ticket_index")
COLUMNS = PartKind("weight", 1, "ks_ticket_columns", "ks_ticket_columns_index")
ENTRIES = PartKind("weight", None, "ks_ticket_entries", "ks_ticket_entries_index")
BIAS = PartKind("bias", None, "ks_ticket_bias", "ks_ticket_bias_index")


def read_part(parameter: Tensor, dim: int | None, index: Tensor) -> Tensor:
    """Copy slices or single values of a parameter.

    Args:
        parameter: any shape.
        dim: 0 or 1, or None for single values.
        index: [k] integer positions.

    Returns:
        [k, ...]: slices lie along the first dimension, whatever `dim` is; [k] for single values.
    """
    index = index.to(parameter.device, torch.int64)
    if dim is None:
        return parameter.detach().take(index)
    return parameter.detach().index_select(dim, index).movedim(dim, 0)


def write_part(parameter: Tensor, dim: int | None, index: Tensor, values: Tensor) -> None:
    """Write slices or single values into a parameter, in place: the inverse of `read_part`."""
    index, values = index.to(parameter.device, torch.int64), values.to(parameter)
    if dim is None:
        parameter.data.put_(index, values)
    else:
        parameter.data.index_copy_(dim, index, values.movedim(0, dim))


def tuned_part(pretrained: Tensor, index: Tensor, changes: Sequence[RowChange]) -> Tensor:
    """Tuned values before rounding: `add_changes`, without a search where there is one change.

    Args:
        pretrained: [k, ...] values.
        index: [k]; which ones, the union of the changes' positions.
        changes: applied in this order.
    """
    if len(changes) == 1:
        wide = pretrained.to(wide_dtype(pretrained.dtype))
        return wide + changes[0].delta.to(wide.dtype)
    return add_changes(pretrained, index, changes)


def position_options(parts: Iterable[tuple[str, int | None, np.ndarray]]) -> dict[str, Any]:
    """The options of `LotteryConfig` that say where parts are.

    Args:
        parts: parameter, dim as in `PartKind`, [k] sorted positions.

    Raises:
        AdapterError: if rows or columns are those of a parameter that is not the weight of a module.
    """
    options: dict[str, dict[str, np.ndarray]] = {"positions": {}, "column_positions": {}, "entry_positions": {}}
    for parameter, dim, index in parts:
        if dim is None:
            options["entry_positions"][parameter] = index
            continue
        module, _, leaf = parameter.rpartition(".")
        if leaf != "weight":
            raise AdapterError(
                f"The ticket selects slices of {parameter!r}, which is no weight of a linear layer or embedding, so no "
                "part of it can be trained. Leave it out of the ticket."
            )
        options["column_positions" if dim else "positions"][module] = index
    return options


def require_replaceable(parameter: Tensor) -> None:
    """Check that a module can run with another tensor in the place of this parameter.

    Raises:
        AdapterError: if DeepSpeed ZeRO-3 manages it, which looks for its own parameter there.
    """
    if hasattr(parameter, "ds_id"):
        raise AdapterError(
            "The parameters of the model are partitioned (DeepSpeed ZeRO-3), and single weights, norms and biases are "
            "trained in a copy that stands in their place. Train with ZeRO-2, or leave them out of the ticket: token "
            "rows and slices of float32 matrices train with ZeRO-3."
        )


class TicketLayer(nn.Module, BaseTunerLayer):
    """A layer in which adapters change parameters: its own parts, or those of the layer it shares a matrix with."""

    kinds: ClassVar[tuple[PartKind, ...]] = ()

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer

    def changes(self, adapters: Sequence[str], kind: PartKind = ROWS) -> list[RowChange]:
        """What the named adapters change of one kind, in their order; those that change nothing here are left out."""
        values, index = getattr(self, kind.values), getattr(self, kind.index)
        return [RowChange(index[name], values[name]) for name in adapters if name in values]

    def acting(self) -> list[str]:
        """Adapters whose changes the forward pass adds to the output of the base layer."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        return [] if self.disable_adapters or self.merged else list(self.active_adapters)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """Move an adapter beside the base weight; unlike PEFT's own method, float32 deltas keep their dtype."""
        device = device or self.get_base_layer().weight.device
        for name in (*self.adapter_layer_names, *self.other_param_names):
            tensors = getattr(self, name)
            if adapter_name in tensors and tensors[adapter_name].device.type != "meta":
                tensors[adapter_name] = tensors[adapter_name].to(device)


class PartLayer(TicketLayer):
    """A layer with parts of its own.

    Subclasses say which `kinds` they have, and name the attributes of those in `adapter_layer_names` and
    `other_param_names`.
    """

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__(base_layer)
        self.merged_adapters: list[str] = []
        for kind in self.kinds:
            setattr(self, kind.values, nn.ParameterDict({}))
            setattr(self, kind.index, BufferDict({}, persistent=True))
        # What merging overwrote: kind to (positions, pretrained values).
        self._overwritten: dict[PartKind, tuple[Tensor, Tensor]] = {}

    def add_part(
        self, adapter_name: str, kind: PartKind, count: int, positions: Sequence[int] | np.ndarray | None
    ) -> None:
        """Make room for a part of an adapter, with zero deltas.

        Args:
            adapter_name: its name.
            kind: one of `kinds`.
            count: k.
            positions: [k] sorted positions; None where they follow from a file, until then nothing is selected.
        """
        parameter = getattr(self.get_base_layer(), kind.parameter)
        shape = full_shape(parameter)
        slice_shape = () if kind.dim is None else shape[: kind.dim] + shape[kind.dim + 1 :]
        narrow = kind.dim is None and math.prod(shape) <= _LARGEST_INT32
        index = torch.full((count,), -1) if positions is None else torch.tensor(np.asarray(positions))
        index = index.to(device=parameter.device, dtype=torch.int32 if narrow else torch.int64)
        getattr(self, kind.index)[adapter_name] = index
        deltas = torch.zeros(count, *slice_shape, device=parameter.device)
        getattr(self, kind.values)[adapter_name] = nn.Parameter(deltas)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Check positions from a file against the parameter before they are taken; PyTorch calls this while loading.

        Raises:
            AdapterError: if they lie outside of it, are not sorted, or stand without values, or values without them.
        """
        for kind in self.kinds:
            values, index = f"{prefix}{kind.values}.", f"{prefix}{kind.index}."
            for adapter, held in getattr(self, kind.index).items():
                here = {key for key in (values + adapter, index + adapter) if key in state_dict}
                if len(here) == 1:
                    raise AdapterError(
                        f"The file of the adapter {adapter!r} has {here.pop()[:200]!r} alone, where values and their "
                        "positions should be. Get the adapter again."
                    )
                if here:
                    shape = full_shape(getattr(self.get_base_layer(), kind.parameter))
                    size = math.prod(shape) if kind.dim is None else shape[kind.dim]
                    require_index(state_dict[index + adapter], len(held), size, index + adapter)
                    expected = getattr(self, kind.values)[adapter].shape
                    require_values(state_dict[values + adapter], expected, values + adapter)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def pretrained(self, kind: PartKind, index: Tensor, parameter: Tensor | None = None) -> Tensor:
        """Values as they were before any merge.

        Args:
            kind: one of `kinds`.
            index: [k] positions.
            parameter: to read from, where the layer's own is not whole; None for the layer's own.

        Returns:
            [k, ...] copy, in the dtype of the parameter.
        """
        if parameter is not None:
            return read_part(parameter, kind.dim, index)
        merged = [(other, where, self._read(other, where)) for other, (where, _) in self._overwritten.items()]
        self._put_back()
        values = self._read(kind, index)
        for other, where, kept in merged:
            self._write(other, where, kept)
        return values

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Write tuned values into the base parameters, in place; the pretrained values are kept for `unmerge`.

        Args:
            safe_merge: refuse to write values that are not finite.
            adapter_names: adapters to merge; the active ones if None.

        Raises:
            AdapterError: with `safe_merge`, if a tuned value is NaN or infinite; nothing is written then.
        """
        mine = {name for kind in self.kinds for name in getattr(self, kind.values)}
        added = [name for name in check_adapters_to_merge(self, adapter_names) if name in mine]
        if not added:
            return
        names = [*self.merged_adapters, *added]
        plan = {kind: found for kind in self.kinds if (found := self.changes(names, kind))}
        if safe_merge and not all(self._is_finite(kind, changes) for kind, changes in plan.items()):
            raise AdapterError(
                f"The adapters {', '.join(names)} hold NaN or infinite values in {type(self.base_layer).__name__}; "
                "nothing was merged. Train again with a smaller learning rate."
            )
        self._put_back()
        indices = {kind: union_index(changes) for kind, changes in plan.items()}
        self._overwritten = {kind: (index, self._read(kind, index)) for kind, index in indices.items()}
        for kind, index in indices.items():
            self._write(kind, index, tuned_part(self._read(kind, index), index, plan[kind]))
        self.merged_adapters = names

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put the pretrained values back, bit for bit."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        self._put_back()
        self._overwritten = {}
        self.merged_adapters = []

    def _is_finite(self, kind: PartKind, changes: Sequence[RowChange]) -> bool:
        index = union_index(changes)
        return bool(torch.isfinite(tuned_part(self.pretrained(kind, index), index, changes)).all())

    def _put_back(self) -> None:
        for kind, (index, values) in self._overwritten.items():
            self._write(kind, index, values)

    def _read(self, kind: PartKind, index: Tensor) -> Tensor:
        return read_part(getattr(self.get_base_layer(), kind.parameter), kind.dim, index)

    def _write(self, kind: PartKind, index: Tensor, values: Tensor) -> None:
        write_part(getattr(self.get_base_layer(), kind.parameter), kind.dim, index, values)
