"""How alike activations are: linear CKA, and what each block of a model does to what it gets. For looking only."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from numpy.typing import NDArray

from ks_lottery.checkpoints.live_model import ModelCheckpoint
from ks_lottery.checkpoints.writer import write_json
from ks_lottery.errors import DataError
from ks_lottery.evaluation.inference import inference_mode
from ks_lottery.units.block import Block, blocks_of

Activations = torch.Tensor | NDArray[Any]
_LEAST_SHARE = 1e-12  # of the squared size of activations; centred ones below it are rounding


@dataclass(frozen=True)
class BlockSimilarity:
    """How alike input and output of one block are.

    Attributes:
        block: label, "layers.3".
        cka: linear CKA over token positions, 0 to 1; None where input or output is the same at every position.
        distance: 1 - cosine, mean over token positions; 0 where the block passes on what it gets.
        positions: token positions compared, padding left out.
    """

    block: str
    cka: float | None
    distance: float
    positions: int


@dataclass(frozen=True)
class ModelSimilarity:
    """How alike input and output of every block of a model are.

    Attributes:
        blocks: in order; the encoder's before the decoder's.
    """

    blocks: tuple[BlockSimilarity, ...]

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {"blocks": [asdict(block) for block in self.blocks]}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_dict` as JSON, atomically."""
        write_json(path, self.to_dict())


def linear_cka(first: Activations, second: Activations) -> float:
    """Linear centred kernel alignment of two sets of activations of the same examples.

    It is 1 for equal activations, and the same after orthogonal maps, scaling and shifting of either side.

    Args:
        first: [examples, m] floating point.
        second: [examples, n].

    Returns:
        0 to 1.

    Raises:
        DataError: if the shapes do not fit, a value is NaN or infinite, or one side is the same for all examples.

    Cost:
        O(examples * m * n), or O(examples^2 (m + n)) where there are fewer examples than that; float64 copies.

    Source:
        Kornblith et al. 2019, arXiv 1905.00414.
    """
    x, y = (torch.as_tensor(side).detach().to(torch.float64) for side in (first, second))
    if x.dim() != 2 or y.dim() != 2 or len(x) != len(y) or len(x) < 2:
        raise DataError(
            f"CKA compares [examples, width] activations of the same 2 or more examples, got shapes {tuple(x.shape)} "
            f"and {tuple(y.shape)}. Flatten positions into examples, and feed both models the same ones."
        )
    if not (torch.isfinite(x).all() and torch.isfinite(y).all()):
        raise DataError("The activations hold NaN or infinity, so CKA is not defined. Find where they diverged.")
    x, y = (_centred(side) for side in (x, y))
    if len(x) < max(x.shape[1], y.shape[1]):
        one, other = x @ x.T, y @ y.T
        return float((one * other).sum() / (one.norm() * other.norm()))
    return float((x.T @ y).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm()))


def block_similarity(model: Any, batches: Iterable[Mapping[str, Any]]) -> ModelSimilarity:
    """Compare input and output of every transformer block, over all token positions that are no padding.

    A block of little effect is no reason to leave it out: a ticket of layers is chosen by its effect on the task.

    Args:
        model: a transformers model of a known architecture, on its device.
        batches: keyword arguments of its forward pass, tensors on its device; `attention_mask` and
            `decoder_attention_mask` mark padding by 0.

    Raises:
        DataError: if there is no batch, or fewer than 2 token positions.
        UnknownNameError, UnitError: as `ks_lottery.units.block.blocks_of`.

    Cost:
        One forward pass, and three [width, width] products per block and batch in float64.

    Source:
        Jordao et al. 2023, arXiv 2301.10835, where CKA only analyses tickets of layers.
    """
    blocks = blocks_of(ModelCheckpoint(model).layout())
    sums = [_Sums() for _ in blocks]
    with inference_mode(model), ExitStack() as hooks:
        kept: list[torch.Tensor | None] = [None, None]
        for block, total in zip(blocks, sums, strict=True):
            hooks.enter_context(_watched(model, block, total, kept))
        for batch in batches:
            kept[0] = batch.get("attention_mask")
            kept[1] = batch.get("decoder_attention_mask")
            model(**batch)
    return ModelSimilarity(tuple(total.similarity(block.label) for block, total in zip(blocks, sums, strict=True)))


class _Sums:
    """Sums over token positions, from which CKA and the mean cosine follow."""

    def __init__(self) -> None:
        self.positions = 0
        self.cosine = 0.0
        self.totals: torch.Tensor | None = None
        self.products: torch.Tensor | None = None

    def add(self, inputs: torch.Tensor, outputs: torch.Tensor) -> None:
        """Add [positions, width] activations of both sides."""
        x, y = inputs.detach().to("cpu", torch.float64), outputs.detach().to("cpu", torch.float64)
        squares = x.square().sum(dim=1) * y.square().sum(dim=1)
        both_zero = (x == 0).all(dim=1) & (y == 0).all(dim=1)
        cosine = torch.where(squares > 0, (x * y).sum(dim=1) / squares.sqrt().clamp_min(1e-300), both_zero.double())
        joined = torch.cat([x, y], dim=1)
        totals, products = joined.sum(dim=0), joined.T @ joined
        self.positions += len(x)
        self.cosine += float(cosine.sum())
        self.totals = totals if self.totals is None else self.totals + totals
        self.products = products if self.products is None else self.products + products

    def similarity(self, block: str) -> BlockSimilarity:
        if self.totals is None or self.products is None or self.positions < 2:
            raise DataError(
                f"Block {block!r} saw {self.positions} token positions, and similarity needs at least 2. Give batches "
                "of tokens that are not all padding."
            )
        centred = self.products - torch.outer(self.totals, self.totals) / self.positions
        width = len(self.totals) // 2
        own, other, across = centred[:width, :width], centred[width:, width:], centred[:width, width:]
        largest = self.products.diagonal()
        flat = any(
            side.trace() <= _LEAST_SHARE * size.sum()
            for side, size in ((own, largest[:width]), (other, largest[width:]))
        )
        cka = None if flat else float(across.square().sum() / (own.norm() * other.norm()))
        return BlockSimilarity(block, cka, 1.0 - self.cosine / self.positions, self.positions)


@contextmanager
def _watched(model: torch.nn.Module, block: Block, sums: _Sums, kept: Sequence[torch.Tensor | None]) -> Iterator[None]:
    """Add what a block gets and gives to sums during each forward pass."""
    side = 1 if block.stack.name == "decoder" else 0

    def add(_: torch.nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], result: Any) -> None:
        inputs = arguments[0] if arguments else named["hidden_states"]
        outputs = result[0] if isinstance(result, tuple) else result
        mask = kept[side]
        chosen = torch.ones(inputs.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
        chosen = chosen.to(inputs.device)
        sums.add(inputs[chosen], outputs[chosen])

    handle = model.get_submodule(block.prefix.removesuffix(".")).register_forward_hook(add, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _centred(side: torch.Tensor) -> torch.Tensor:
    centred = side - side.mean(dim=0)
    if centred.square().sum() <= _LEAST_SHARE * side.square().sum():
        raise DataError(
            f"One side's activations, of shape {tuple(side.shape)}, are the same for all examples, so CKA is not "
            "defined. Compare more examples, or leave this layer out."
        )
    return centred
