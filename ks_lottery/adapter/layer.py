"""The modules that stand in the model: a matrix with trainable rows, and the other ends that share it."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn

from ks_lottery.adapter.rows import RowChange, add_changes, change_embedding, change_logits, find_rows, union_index
from ks_lottery.errors import AdapterError


class RowReader(nn.Module, BaseTunerLayer):
    """A layer whose matrix has changed rows; the changes are its own or another layer's.

    Subclasses provide `ks_ticket_delta` and `ks_ticket_index`, adapter name to [k, d] float32 and to [k] int64, and
    `merged_adapters`. The base layer runs as it is, hooks included, and its output is changed afterwards; only scaled
    embeddings and output heads read rows of the base weight as well.
    """

    adapter_layer_names = ("ks_ticket_delta",)
    other_param_names = ("ks_ticket_index",)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        _require_supported(base_layer)
        self.base_layer = base_layer

    def changes(self, adapters: Sequence[str]) -> list[RowChange]:
        """What the named adapters change here, in their order; those that change nothing here are left out."""
        return [
            RowChange(self.ks_ticket_index[name], self.ks_ticket_delta[name])
            for name in adapters
            if name in self.ks_ticket_delta
        ]

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Output of the base layer with the changes of the active adapters."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        output = self.base_layer(x, *args, **kwargs)
        changes = [] if self.disable_adapters or self.merged else self.changes(self.active_adapters)
        if not changes:
            return output
        base = self.get_base_layer()
        if isinstance(base, nn.Embedding):
            return change_embedding(base, x, output, changes)
        if base.weight.numel() == 0:
            raise AdapterError(
                f"The weight of the output head {type(base).__name__} is partitioned (DeepSpeed ZeRO-3), and its "
                "ticket rows must be read in every step. Train with ZeRO-2, or a ticket of input rows."
            )
        return change_logits(base, x, output, changes)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """Move an adapter beside the base weight; unlike PEFT's own method, float32 deltas keep their dtype."""
        device = device or self.get_base_layer().weight.device
        for values in (self.ks_ticket_delta, self.ks_ticket_index):
            if adapter_name in values and values[adapter_name].device.type != "meta":
                values[adapter_name] = values[adapter_name].to(device)


class RowLayer(RowReader):
    """A matrix, embedding or output head, with trainable rows.

    Per adapter it holds `ks_ticket_delta`, a parameter of [k, d] float32 whatever the dtype of the matrix, and
    `ks_ticket_index`, a buffer of [k] int64 that is saved with it.
    """

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__(base_layer)
        self.merged_adapters: list[str] = []
        self.ks_ticket_delta = nn.ParameterDict({})
        self.ks_ticket_index = BufferDict({}, persistent=True)
        self._pretrained: tuple[Tensor, Tensor] | None = None

    def update_layer(self, adapter_name: str, num_rows: int, positions: Sequence[int] | None) -> None:
        """Make room for an adapter, with zero deltas.

        Args:
            adapter_name: its name.
            num_rows: k.
            positions: [k] sorted rows; None where they follow from a file, until then no row is selected.
        """
        base = self.get_base_layer()
        width = base.embedding_dim if isinstance(base, nn.Embedding) else base.in_features
        device = base.weight.device
        index = torch.full((num_rows,), -1) if positions is None else torch.tensor(positions)
        self.ks_ticket_index[adapter_name] = index.to(device=device, dtype=torch.int64)
        self.ks_ticket_delta[adapter_name] = nn.Parameter(torch.zeros(num_rows, width, device=device))

    def pretrained_rows(self, index: Tensor, weight: Tensor | None = None) -> Tensor:
        """Rows as they were before any merge.

        Args:
            index: [n] int64.
            weight: [V, d] base weight to read from, where the layer's own is not whole; None for the layer's own.

        Returns:
            [n, d] copy, in the dtype of the weight.
        """
        weight = self.get_base_layer().weight if weight is None else weight
        rows = weight.detach()[index.to(weight.device)]
        if self._pretrained is not None:
            merged, kept = (part.to(rows.device) for part in self._pretrained)
            slot = find_rows(merged, index.to(rows.device))
            found = slot < len(merged)
            rows[found] = kept[slot[found]].to(rows.dtype)
        return rows

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Write tuned rows into the base weight, in place; the pretrained rows are kept for `unmerge`.

        Args:
            safe_merge: refuse to write values that are not finite.
            adapter_names: adapters to merge; the active ones if None.

        Raises:
            AdapterError: with `safe_merge`, if a tuned value is NaN or infinite; nothing is written then.
        """
        added = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.ks_ticket_delta]
        if not added:
            return
        names = [*self.merged_adapters, *added]
        changes = self.changes(names)
        index = union_index(changes)
        weight = self.get_base_layer().weight
        pretrained = self.pretrained_rows(index)
        tuned = add_changes(pretrained, index, changes)
        if safe_merge and not torch.isfinite(tuned).all():
            raise AdapterError(
                f"The adapters {', '.join(names)} hold NaN or infinite values in {type(self.base_layer).__name__}; "
                "nothing was merged. Train again with a smaller learning rate."
            )
        weight.data.index_copy_(0, index, tuned.to(weight.dtype))
        self._pretrained = (index, pretrained)
        self.merged_adapters = names

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put the pretrained rows back, bit for bit."""
        if self._pretrained is None:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        weight = self.get_base_layer().weight
        index, pretrained = (part.to(weight.device) for part in self._pretrained)
        weight.data.index_copy_(0, index, pretrained)
        self._pretrained = None
        self.merged_adapters = []


class TiedRowLayer(RowReader):
    """Another layer that reads the matrix of a `RowLayer`: a tied output head, the second of two shared embeddings.

    It has no parameters of its own. The source's deltas drive it, so both ends learn from both ends' gradients, and
    merging the source merges it.
    """

    def __init__(self, base_layer: nn.Module, source: RowLayer) -> None:
        super().__init__(base_layer)
        # Stored past nn.Module's registry, so that the source's parameters are not listed and saved a second time.
        self.__dict__["source"] = source
        self._active_adapter = source._active_adapter
        self._disable_adapters = source.disable_adapters

    @property
    def ks_ticket_delta(self) -> nn.ParameterDict:
        """The source's deltas."""
        return self.source.ks_ticket_delta

    @property
    def ks_ticket_index(self) -> BufferDict:
        """The source's positions."""
        return self.source.ks_ticket_index

    @property
    def merged_adapters(self) -> list[str]:
        """The source's merged adapters."""
        return self.source.merged_adapters

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Do nothing: the matrix is the source's."""

    def unmerge(self) -> None:
        """Put the source's pretrained rows back, if they are merged."""
        if self.merged:
            self.source.unmerge()


def _require_supported(base_layer: nn.Module) -> None:
    kind = type(base_layer)
    if not isinstance(base_layer, nn.Embedding | nn.Linear):
        raise AdapterError(
            f"Rows of {kind.__module__}.{kind.__name__} cannot be trained; supported are nn.Embedding and nn.Linear."
        )
    own_way = isinstance(base_layer, nn.Embedding) and kind.forward is not nn.Embedding.forward
    if own_way and not hasattr(base_layer, "embed_scale"):
        raise AdapterError(
            f"The embedding {kind.__module__}.{kind.__name__} computes its output in a way of its own, so merged and "
            "unmerged rows could differ. Supported are nn.Embedding and embeddings with an embed_scale."
        )
    if not base_layer.weight.is_floating_point():
        raise AdapterError(
            f"The weight of {kind.__name__} is quantised ({base_layer.weight.dtype}); its rows cannot be trained. "
            "Exclude it from quantisation (llm_int8_skip_modules)."
        )
