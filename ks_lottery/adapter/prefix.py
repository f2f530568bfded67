"""Below the limit: positions before the first ticket token run without gradient.

Where rows of an untied input embedding are all that trains, they act on a position only through tokens of the ticket
at that position or before it. So the positions before the first such token have no gradient: they run under
`torch.no_grad` and leave their keys and values in a cache, and only the rest of the batch is differentiated.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Self

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.loss.loss_utils import ForCausalLMLoss

from ks_lottery.adapter.cache_argument import cache_argument, cache_field
from ks_lottery.adapter.layer import RowLayer, TiedRowLayer
from ks_lottery.adapter.rows import RowChange, find_rows, union_index
from ks_lottery.adapter.tuned import is_sharded
from ks_lottery.errors import AdapterError

SHORTEST = 32
"""Fewer positions than these do not pay for running the model twice; measured by `benchmarks/prefix.py`."""

PROVEN = (
    "GPTNeoXForCausalLM", "LlamaForCausalLM", "MistralForCausalLM", "Olmo2ForCausalLM", "Phi3ForCausalLM",
    "Qwen2ForCausalLM", "Qwen3ForCausalLM",
)  # fmt: skip
"""Model classes for which the tests find the gradients equal, with grouped heads and sliding windows."""

_IGNORED = -100
_SPLIT = {"input_ids", "attention_mask", "position_ids", "labels", "num_items_in_batch", "use_cache"}
_CHANGING_ROPE = {"dynamic", "longrope"}


def skip_unused_gradients(model: PeftModel, shortest: int = SHORTEST) -> "SkippedGradients":
    """Train a ticket of input rows without computing gradients before its first token.

    From here on a training step of the model, under any Trainer, runs the positions before the batch's first ticket
    token without gradient; a batch without any takes a forward pass alone. Loss, logits and gradients are the ordinary
    ones up to rounding (1e-6 in float32); with dropout the random numbers are drawn in another order. What cannot be
    split goes the ordinary way: evaluation, generation, steps under `torch.no_grad` or `torch.compile`, sequences
    packed by their position ids, and forward passes with arguments other than tokens, mask, positions and labels.

    Args:
        model: a causal language model with an attached ticket, whose active adapter trains rows of the input embedding
            and nothing else.
        shortest: leave batches alone whose first ticket token has fewer positions before it.

    Returns:
        What undoes it: `remove()`, or the end of a `with` block.

    Raises:
        AdapterError: if the model cannot be trained so; the message says why. A training step raises it as well, where
            the model was changed in between: gradient checkpointing, another adapter.

    Example:
        `with skip_unused_gradients(model): trainer.train()`

    Cost:
        A step with its first ticket token half way takes about 0.7 of one that differentiates the whole batch.
    """
    if not isinstance(model, PeftModel):
        raise AdapterError(
            f"skip_unused_gradients needs the model that attach_ticket returned, got {type(model).__name__}."
        )
    base = model.get_base_model()
    if isinstance(vars(base).get("forward"), SkippedGradients):
        raise AdapterError("The model skips unused gradients already. Call remove() on what that returned.")
    _require_splittable(base)
    return SkippedGradients(base, shortest)


class SkippedGradients:
    """Stands in place of a model's `forward`; made by `skip_unused_gradients`."""

    def __init__(self, base: PreTrainedModel, shortest: int) -> None:
        self.base = base
        self.shortest = shortest
        self.removed = False
        self._replaced = vars(base).get("forward")
        self._cache = str(cache_argument(type(base).forward))
        # The Trainer reads the signature of `forward`, and finds the ordinary one behind this name.
        self.__wrapped__ = base.forward
        base.forward = self

    def remove(self) -> None:
        """Go back to the ordinary forward pass."""
        self.removed = True
        # Another wrapper may stand around this one, which then passes everything through.
        if vars(self.base).get("forward") is self:
            del self.base.forward
            if self._replaced is not None:
                self.base.forward = self._replaced

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Forward pass of the model; arguments and result are the ordinary ones."""
        differentiated = self.base.training and torch.is_grad_enabled() and not torch.compiler.is_compiling()
        inputs = {name: value for name, value in kwargs.items() if value is not None}
        if self.removed or not differentiated or args or not _is_plain(inputs):
            return self.__wrapped__(*args, **kwargs)
        changes = _require_splittable(self.base)
        length = inputs["input_ids"].shape[1]
        cut = first_hit(inputs["input_ids"], changes)
        if not changes or cut < min(self.shortest, length):
            return self.__wrapped__(**kwargs)
        return self._split(inputs, cut, changes)

    def _split(self, inputs: Mapping[str, Any], cut: int, changes: Sequence[RowChange]) -> Any:
        with torch.no_grad():
            first = self._run(inputs, slice(0, cut), None)
        if cut < inputs["input_ids"].shape[1]:
            rest = self._run(inputs, slice(cut, None), getattr(first, cache_field(first))).logits
        else:
            # No logits, but with a graph: who differentiates the loss of a batch without a hit gets zeros.
            rest = first.logits[:, :0] + torch.stack([change.delta[:0].sum() for change in changes]).sum()
        keep = inputs.get("use_cache", self.base.config.use_cache)
        field = cache_field(first)
        return type(first)(
            loss=_loss(inputs, [first.logits, rest]) if "labels" in inputs else None,
            logits=torch.cat([first.logits, rest], dim=1),
            **{field: getattr(first, field) if keep else None},
        )

    def _run(self, inputs: Mapping[str, Any], part: slice, cache: Any) -> Any:
        pieces = {"input_ids": inputs["input_ids"][:, part]}
        if "attention_mask" in inputs:
            pieces["attention_mask"] = inputs["attention_mask"][:, : part.stop]
        if "position_ids" in inputs:
            pieces["position_ids"] = inputs["position_ids"][:, part]
        return self.__wrapped__(**pieces, **{self._cache: cache}, use_cache=True)


def first_hit(tokens: Tensor, changes: Sequence[RowChange]) -> int:
    """The first position at which any sequence has a changed row.

    Args:
        tokens: [batch, length] token ids.
        changes: of the input embedding.

    Returns:
        The position, or `length` where there is none.
    """
    if not changes:
        return tokens.shape[1]
    index = union_index(changes)
    hits = (find_rows(index, tokens) < len(index)).any(dim=0).nonzero()
    return int(hits[0]) if len(hits) else tokens.shape[1]


def _is_plain(inputs: Mapping[str, Any]) -> bool:
    """Whether the arguments of a forward pass, those that are not None, can be split by position."""
    tokens, mask = inputs.get("input_ids"), inputs.get("attention_mask")
    known = inputs.keys() <= _SPLIT | {"return_dict"} and inputs.get("return_dict", True)
    if not known or tokens is None:
        return False
    # Without a mask, position ids say where packed sequences begin; a cache hides that from the model.
    mask_fits = (
        "position_ids" not in inputs if mask is None else isinstance(mask, Tensor) and mask.shape == tokens.shape
    )
    positions = inputs.get("position_ids")
    return mask_fits and (positions is None or positions.dim() == 2)


def _loss(inputs: Mapping[str, Any], logits: Sequence[Tensor]) -> Tensor:
    """The loss of the whole batch, from logits that lie one after the other, each [batch, some positions, V]."""
    targets = F.pad(inputs["labels"], (0, 1), value=_IGNORED)[:, 1:]
    count = inputs.get("num_items_in_batch")
    total = (targets != _IGNORED).sum() if count is None else count
    losses = [
        ForCausalLMLoss(piece, None, piece.shape[-1], total, shift_labels=part.contiguous())
        for piece, part in zip(logits, targets.split([piece.shape[1] for piece in logits], dim=1), strict=True)
    ]
    return torch.stack(losses).sum()


def _require_splittable(base: PreTrainedModel) -> list[RowChange]:
    """What trains in the input embedding.

    Raises:
        AdapterError: if anything else does, or the model's passes over a part of the positions differ from those over
            all.
    """
    if type(base).__name__ not in PROVEN:
        _refuse(
            f"{type(base).__name__} was not shown to give equal gradients so; those that were are {', '.join(PROVEN)}. "
            "Train it the ordinary way."
        )
    embedding = base.get_input_embeddings()
    if not isinstance(embedding, RowLayer):
        _refuse("the ticket has no rows of the input embedding. Train it the ordinary way.")
    _require_whole(base)
    _require_rows_alone(base, embedding)
    for name, module in base.named_modules():
        _require_equal_parts(name, module)
    if hasattr(embedding, "neftune_noise_alpha"):
        _refuse("NEFTune scales its noise by the length of the batch. Train without one of the two.")
    return [change for change in embedding.changes(embedding.acting()) if change.delta.requires_grad]


def _require_whole(base: PreTrainedModel) -> None:
    """Check what holds for the whole model: its loss, its attention, its config."""
    config = base.config
    if base.loss_function is not ForCausalLMLoss:
        _refuse("the model has a loss of its own, which need not be a sum over positions. Train it the ordinary way.")
    if config._attn_implementation != "sdpa":
        _refuse(
            f"attn_implementation={config._attn_implementation!r} was not shown to give equal gradients; in 'eager' "
            "padding sees tokens that come later. Load the model with attn_implementation='sdpa'."
        )
    if not getattr(config, "is_causal", True):
        _refuse("its config says is_causal=False, so that positions see later ones. Train it the ordinary way.")
    for option in ("output_attentions", "output_hidden_states"):
        if getattr(config, option):
            _refuse(f"its config says {option}=True, and what that gives needs all positions at once. Set it to False.")


def _require_rows_alone(base: PreTrainedModel, embedding: RowLayer) -> None:
    own = set(map(id, embedding.ks_ticket_delta.values()))
    for name, parameter in base.named_parameters():
        if parameter.requires_grad and id(parameter) not in own:
            _refuse(f"{name!r} trains too, and every position has a gradient there. Use a ticket of input rows alone.")
        if is_sharded(parameter):
            _refuse(
                f"{name!r} is sharded over processes, which must take the same passes (FSDP, DeepSpeed ZeRO-3). Train "
                "with plain data parallelism."
            )
    for name, module in base.named_modules():
        if isinstance(module, TiedRowLayer):
            _refuse(
                f"{name!r} shares the matrix of the input embedding, and every position has a gradient there. Use a "
                "model with separate embeddings."
            )


def _require_equal_parts(name: str, module: nn.Module) -> None:
    """Check that a module does the same to a part of the positions as to all of them."""
    if getattr(module, "gradient_checkpointing", False):
        _refuse("gradient checkpointing drops the cache of keys and values. Train without one of the two.")
    kinds = getattr(module, "rope_type", None)
    changing = _CHANGING_ROPE & set(kinds.values() if isinstance(kinds, dict) else [kinds])
    if changing:
        _refuse(
            f"{name!r} rotates by the length of the batch (rope_type {changing.pop()!r}), and a part of it is shorter. "
            "Train it the ordinary way."
        )


def _refuse(reason: str) -> NoReturn:
    raise AdapterError(f"Gradients before the first ticket token cannot be skipped: {reason}")
