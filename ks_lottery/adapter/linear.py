"""The modules that stand in a model for linear layers and norms of which an adapter changes a part."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D
from typing_extensions import override

from ks_lottery.adapter.columns import change_inputs, change_outputs, slice_differences, total_delta
from ks_lottery.adapter.entries import EntryPattern, entry_pattern, linear_with_entries
from ks_lottery.adapter.overlap import columns_outside
from ks_lottery.adapter.parts import (
    BIAS,
    COLUMNS,
    ENTRIES,
    ROWS,
    PartKind,
    PartLayer,
    require_replaceable,
    tuned_part,
)
from ks_lottery.adapter.rows import RowChange, union_index, wide_dtype
from ks_lottery.checkpoints.live_model import full_shape


class LinearLayer(PartLayer):
    """A linear layer of which rows, columns, single weights and values of the bias are trainable.

    Parts of one adapter may overlap: what lies in a chosen row and in a chosen column is trained by the row, and the
    column's delta is zero there.
    """

    kinds: ClassVar[tuple[PartKind, ...]] = (ROWS, COLUMNS, ENTRIES, BIAS)
    adapter_layer_names = tuple(kind.values for kind in kinds)
    other_param_names = tuple(kind.index for kind in kinds)

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__(base_layer)
        self.transposed = isinstance(base_layer, Conv1D)
        # The last pattern, and the positions that it was made of.
        self._pattern: tuple[list[tuple[Tensor, int | None]], EntryPattern] | None = None

    @override
    def changes(self, adapters: Sequence[str], kind: PartKind = ROWS) -> list[RowChange]:
        found = super().changes(adapters, kind)
        if kind != COLUMNS:
            return found
        names = [name for name in adapters if name in self.ks_ticket_columns]
        return [
            columns_outside(change, self.ks_ticket_index[name]) if name in self.ks_ticket_index else change
            for name, change in zip(names, found, strict=True)
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Output of the base layer with the changes of the acting adapters."""
        adapters = self.acting()
        base = self.get_base_layer()
        bias = tuned_vectors(self, adapters, (BIAS,)).get("bias")
        entries = self.changes(adapters, ENTRIES)
        if entries:
            pattern = self._pattern_of(entries)
            delta = total_delta(entries, pattern.flat, wide_dtype(base.weight.dtype))
            output = linear_with_entries(base, x, delta, bias, pattern, self.transposed)
        elif bias is not None:
            output = functional_call(base, {"bias": bias}, (x,))
        else:
            output = self.base_layer(x)
        slices = [(kind, self.changes(adapters, kind)) for kind in (ROWS, COLUMNS)]
        if (entries or self.transposed) and any(changes for _, changes in slices):
            # Autograd copies twice, or refuses, where a view is changed in place; these two outputs are views.
            output = output.clone()
        for kind, changes in slices:
            if changes:
                assert kind.dim is not None
                change = change_outputs if (kind.dim == 0) != self.transposed else change_inputs
                output = change(output, x, *slice_differences(base.weight, kind.dim, changes))
        return output

    def _pattern_of(self, entries: Sequence[RowChange]) -> EntryPattern:
        if torch.compiler.is_compiling():  # neither versions nor sparse tensors can be traced
            return EntryPattern(union_index(entries), None, None)
        # Loading an adapter writes into the positions, which their version counts; inference tensors have none.
        key = [(e.index, None if e.index.is_inference() else e.index._version) for e in entries]
        if self._pattern is not None:
            known, pattern = self._pattern
            if len(known) == len(key) and all(a is c and b == d for (a, b), (c, d) in zip(known, key, strict=True)):
                return pattern
        pattern = entry_pattern(union_index(entries), full_shape(self.get_base_layer().weight))
        self._pattern = key, pattern
        return pattern


class VectorLayer(PartLayer):
    """A module, as a rule a norm, of whose weight or bias vectors values are trainable."""

    kinds: ClassVar[tuple[PartKind, ...]] = (ENTRIES, BIAS)
    adapter_layer_names = tuple(kind.values for kind in kinds)
    other_param_names = tuple(kind.index for kind in kinds)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Output of the base layer, computed with the tuned vectors of the acting adapters."""
        tuned = tuned_vectors(self, self.acting(), self.kinds)
        return functional_call(self.base_layer, tuned, args, kwargs) if tuned else self.base_layer(*args, **kwargs)


def tuned_vectors(layer: PartLayer, adapters: Sequence[str], kinds: Iterable[PartKind]) -> dict[str, Tensor]:
    """Vectors that adapters change, whole and rounded as merging would round them, by the parameter's name.

    The gradient is passed straight through the rounding.
    """
    tuned = {}
    for kind in kinds:
        changes = layer.changes(adapters, kind)
        if changes:
            vector = getattr(layer.get_base_layer(), kind.parameter)
            require_replaceable(vector)
            vector = vector.detach()
            index = union_index(changes)
            values = tuned_part(vector[index.to(torch.int64)], index, changes)
            tuned[kind.parameter] = vector.index_copy(0, index.to(torch.int64), values.to(vector.dtype))
    return tuned
