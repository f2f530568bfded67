"""The modules that stand in the model: a matrix with trainable rows, and the other ends that share it."""

from collections.abc import Sequence
from typing import Any, ClassVar

from peft.tuners._buffer_dict import BufferDict
from torch import Tensor, nn

from ks_lottery.adapter.parts import ROWS, PartKind, PartLayer, TicketLayer
from ks_lottery.adapter.rows import change_embedding, change_logits
from ks_lottery.errors import AdapterError


class RowReader(TicketLayer):
    """A layer whose matrix has changed rows; the changes are its own or another layer's.

    Subclasses provide `ks_ticket_delta` and `ks_ticket_index`, adapter name to [k, d] float32 and to [k] int64, and
    `merged_adapters`. The base layer runs as it is, hooks included, and its output is changed afterwards; only scaled
    embeddings and output heads read rows of the base weight as well.
    """

    kinds: ClassVar[tuple[PartKind, ...]] = (ROWS,)
    adapter_layer_names = (ROWS.values,)
    other_param_names = (ROWS.index,)

    def __init__(self, base_layer: nn.Module) -> None:
        _require_supported(base_layer)
        super().__init__(base_layer)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Output of the base layer with the changes of the active adapters."""
        adapters = self.acting()
        output = self.base_layer(x, *args, **kwargs)
        changes = self.changes(adapters)
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


class RowLayer(RowReader, PartLayer):
    """A matrix, embedding or output head, with trainable rows.

    Per adapter it holds `ks_ticket_delta`, a parameter of [k, d] float32 whatever the dtype of the matrix, and
    `ks_ticket_index`, a buffer of [k] int64 that is saved with it.
    """

    def update_layer(self, adapter_name: str, num_rows: int, positions: Sequence[int] | None) -> None:
        """Make room for an adapter, with zero deltas.

        Args:
            adapter_name: its name.
            num_rows: k.
            positions: [k] sorted rows; None where they follow from a file, until then no row is selected.
        """
        self.add_part(adapter_name, ROWS, num_rows, positions)

    def pretrained_rows(self, index: Tensor) -> Tensor:
        """[n, d] copy of rows as they were before any merge, in the dtype of the weight."""
        return self.pretrained(ROWS, index)


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
