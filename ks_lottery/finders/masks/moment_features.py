"""Features of a model, their means and variances, and what these are to be: of the dense model, or of data."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from typing_extensions import override

from ks_lottery.errors import DataError
from ks_lottery.finders.masks.frozen import Frozen
from ks_lottery.finders.saliency.batches import examples_in

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Features = Callable[["torch.nn.Module", Mapping[str, Any]], "Sequence[Tensor]"]
"""(model, batch) to one [n, f] tensor per layer of features, with gradient."""

_LABELS = ("labels", "label", "label_ids")
_STATES = (
    ("hidden_states", "attention_mask"), ("encoder_hidden_states", "attention_mask"),
    ("decoder_hidden_states", "decoder_attention_mask"),
)  # fmt: skip


class Moments(NamedTuple):
    """Mean and variance of every feature of a layer.

    Attributes:
        mean: [f] float.
        variance: [f] float; of a sample, with n - 1.
    """

    mean: "Tensor"
    variance: "Tensor"


def hidden_features(model: "torch.nn.Module", batch: Mapping[str, Any]) -> "list[Tensor]":
    """Hidden states of a transformers model at the positions that the attention mask counts; labels are not read.

    Args:
        model: a transformers model.
        batch: its inputs; without `attention_mask` every position counts.

    Returns:
        one [positions, width] per hidden state, embeddings first; of a model with an output for each position, the
        logits as the last one.

    Raises:
        DataError: if the model gives no hidden states.
    """
    takes = inspect.signature(model.forward).parameters.values()
    known = any(one.name == "output_hidden_states" or one.kind is one.VAR_KEYWORD for one in takes)
    inputs = {name: value for name, value in batch.items() if name not in _LABELS}
    output = model(**inputs, output_hidden_states=True, return_dict=True) if known else None
    layers = [(state, batch.get(mask)) for key, mask in _STATES for state in getattr(output, key, None) or () if known]
    if not layers:
        raise DataError(
            f"{type(model).__name__} gives no hidden states to match. Give MomentTargets(model, batches, features=...) "
            "a function of (model, batch) that returns one [n, f] tensor for each layer."
        )
    logits = getattr(output, "logits", None)
    if logits is not None and logits.ndim == 3:
        layers.append((logits, layers[-1][1]))
    return [state.flatten(0, -2) if mask is None else state[mask.bool()] for state, mask in layers]


def moments_of(features: "Sequence[Tensor]") -> list[Moments]:
    """Mean and variance of each feature over the rows, with gradient.

    Args:
        features: one [n, f] per layer, any float dtype.

    Returns:
        per layer, [f] of at least float32.

    Raises:
        DataError: if a layer is no matrix, or has fewer than two rows.
    """
    import torch

    found = []
    for number, layer in enumerate(features):
        _require_rows(number, layer)
        wide = layer.to(torch.promote_types(layer.dtype, torch.float32))
        found.append(Moments(wide.mean(0), wide.var(0)))
    return found


def data_moments(features: "Iterable[Sequence[Tensor]]") -> list[Moments]:
    """Mean and variance over a whole data set, in one pass over its batches.

    Args:
        features: of each batch, one [n, f] per layer.

    Returns:
        per layer, [f] float64, on the features' device.

    Raises:
        DataError: if there is no batch, or fewer than two rows in all.
    """
    sums: list[list[Tensor]] = []
    count = 0
    for batch in features:
        wide = [layer.detach().double() for layer in batch]
        # Around the first row, so that a large mean costs no digits of the variance.
        sums = sums or [[layer[0], 0 * layer[0], 0 * layer[0]] for layer in wide]
        for part, layer in zip(sums, wide, strict=True):
            part[1] = part[1] + (layer - part[0]).sum(0)
            part[2] = part[2] + (layer - part[0]).square().sum(0)
        count += len(wide[0])
    if count < 2:
        raise DataError(f"Moments of {count} rows of features: a variance needs at least two. Give more data.")
    return [
        Moments(origin + total / count, (squares - total.square() / count) / (count - 1))
        for origin, total, squares in sums
    ]


@dataclass(frozen=True)
class MomentTargets(Frozen):
    """A frozen model, batches of its inputs, and what the means and variances of its features are to be.

        MomentTargets(generator, noise, features=seen_by_a_network, targets=data_moments(map(seen, data)))

    Attributes:
        features: (model, batch) to one [n, f] tensor per layer; of a generator the features of what it generates.
        targets: one entry per layer, the same for every batch; None: those of the unmasked model on the same batch.
    """

    features: Features = hidden_features
    targets: Sequence[Moments] | None = None

    @override
    def details(self) -> dict[str, Any]:
        return {**super().details(), "targets": "the unmasked model" if self.targets is None else "data"}


def wanted_moments(evidence: Frozen, features: Features) -> Iterator[list[Moments]]:
    """Moments that each batch is to have, in the order of the batches.

    Args:
        evidence: whose model is unmasked; its forward passes are counted.
        features: of the model.
    """
    import torch

    given = evidence.targets if isinstance(evidence, MomentTargets) else None
    for batch in evidence.moved():
        if given is not None:
            device = next(evidence.model.parameters()).device
            yield [Moments(one.mean.to(device), one.variance.to(device)) for one in given]
            continue
        with torch.no_grad():
            yield moments_of(features(evidence.model, batch))
        evidence.passes.count(forward=examples_in(batch))


def _require_rows(number: int, layer: "Tensor") -> None:
    if layer.ndim != 2 or len(layer) < 2:
        raise DataError(
            f"The features of layer {number} have shape {tuple(layer.shape)}, but a variance needs a matrix of at "
            "least two rows. Give larger batches, or features as [n, f]."
        )
