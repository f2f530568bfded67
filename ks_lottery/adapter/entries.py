"""What changed single weights of a linear layer's matrix do to its output.

The base layer runs once, with a copy of its matrix in which the tuned weights stand, so its output is that of the
merged layer to the bit. The copy is dropped at once and made again in the backward pass: at any time there is one
temporary matrix for the whole model, and no delta of the size of a matrix. Copying costs a few per cent of the product
(2 to 5 % for 512 tokens on a CPU), less than half of what multiplying by a sparse matrix beside the base layer costs at
0.1 to 6 % density.
"""

import functools
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from ks_lottery.adapter.columns import require_whole
from ks_lottery.adapter.parts import require_replaceable
from ks_lottery.adapter.rows import wide_dtype

SAMPLED_DENSITY = 0.06
"""Up to which density the gradient is computed at the chosen places alone, on a CPU.

There `torch.sparse.sampled_addmm` takes this share of the time of the dense gradient (float32, 512 tokens; 2048 tokens
in brackets): 0.2 to 0.5 (0.4 to 0.7) at 1 %, 0.5 to 0.75 (0.9 to 1.05) at 5 %, 0.8 to 1.3 (1.3 to 1.9) at 10 %. Above
it, and on other devices, the dense gradient of one matrix is made and gathered from.
"""


@dataclass(frozen=True, slots=True)
class EntryPattern:
    """Chosen places of a matrix, in the two forms that the passes need.

    Attributes:
        flat: [n] sorted positions in the flattened matrix.
        rows: [matrix rows + 1] int32; where each row's places begin, or None where the dense gradient is used.
        columns: [n] int32; column of each place, or None as well.
    """

    flat: Tensor
    rows: Tensor | None
    columns: Tensor | None


def entry_pattern(index: Tensor, shape: tuple[int, ...]) -> EntryPattern:
    """Prepare positions for many steps.

    Args:
        index: [n] sorted positions in a flattened matrix.
        shape: the matrix' shape.
    """
    if index.device.type != "cpu" or len(index) > SAMPLED_DENSITY * shape[0] * shape[1]:
        return EntryPattern(index, None, None)
    starts = torch.searchsorted(index.to(torch.int64), torch.arange(shape[0] + 1) * shape[1])
    return EntryPattern(index, starts.to(torch.int32), (index % shape[1]).to(torch.int32))


def linear_with_entries(
    base: nn.Module, hidden: Tensor, delta: Tensor, bias: Tensor | None, pattern: EntryPattern, transposed: bool
) -> Tensor:
    """Output of a linear layer in which single weights, and possibly the bias, are others.

    Args:
        base: the layer; it is called as a module, so its hooks run.
        hidden: [..., inputs].
        delta: [n] float32 or wider; what is added to the weights at the places of the pattern. The sums are rounded
            once to the matrix' dtype, and the gradient is passed straight through that rounding.
        bias: the whole bias, if it is another than the layer's own.
        pattern: the places.
        transposed: whether the matrix is stored [inputs, outputs].

    Returns:
        [..., outputs].

    Raises:
        AdapterError: if DeepSpeed ZeRO-3 has partitioned the matrix.

    Cost:
        A temporary copy of the matrix in forward and backward. The gradient of n places is computed as such up to
        `SAMPLED_DENSITY`, and as one temporary dense gradient above.
    """
    require_whole(base.weight)  # type: ignore[arg-type]
    require_replaceable(base.weight)  # type: ignore[arg-type]
    result: Tensor = _EntryLinear.apply(hidden, delta, bias, base, pattern, transposed)
    return result


class _EntryLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        delta: Tensor,
        bias: Tensor | None,
        base: nn.Module,
        pattern: EntryPattern,
        transposed: bool,
    ) -> Tensor:
        ctx.base, ctx.pattern, ctx.transposed = base, pattern, transposed
        ctx.save_for_backward(hidden, delta)
        replaced = {"weight": _with_entries(base, delta, pattern)}
        if bias is not None:
            replaced["bias"] = bias
        output: Tensor = functional_call(base, replaced, (hidden,))
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, delta = ctx.saved_tensors
        upstream = gradient.reshape(-1, gradient.shape[-1])
        to_hidden, to_delta, to_bias = None, None, None
        with torch.autocast(gradient.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                weight = _with_entries(ctx.base, delta, ctx.pattern).to(gradient.dtype)
                flat = upstream @ (weight.T if ctx.transposed else weight)
                to_hidden = flat.view(hidden.shape).to(hidden.dtype)
            if ctx.needs_input_grad[1]:
                inputs = hidden.reshape(-1, hidden.shape[-1]).to(gradient.dtype)
                sides = (inputs, upstream) if ctx.transposed else (upstream, inputs)
                to_delta = _gradient_at(ctx.pattern, *sides).to(delta.dtype)
            if ctx.needs_input_grad[2]:
                to_bias = upstream.sum(0)
        return to_hidden, to_delta, to_bias, None, None, None


def _with_entries(base: nn.Module, delta: Tensor, pattern: EntryPattern) -> Tensor:
    weight: Tensor = base.weight.detach().clone(memory_format=torch.contiguous_format)  # type: ignore[operator]
    flat = weight.view(-1)
    wide = wide_dtype(weight.dtype)
    if weight.dtype == wide:
        flat.index_add_(0, pattern.flat, delta.to(wide))
    else:
        tuned = flat.index_select(0, pattern.flat).to(wide) + delta
        flat.index_copy_(0, pattern.flat.to(torch.int64), tuned.to(weight.dtype))
    return weight


def _gradient_at(pattern: EntryPattern, left: Tensor, right: Tensor) -> Tensor:
    """[n] values of `left.T @ right` at the places of the pattern; left is [tokens, rows], right [tokens, columns]."""
    if pattern.rows is None or pattern.columns is None:
        return (left.T @ right).view(-1).index_select(0, pattern.flat)
    _expect_sparse()
    wide = wide_dtype(left.dtype)
    zeros = torch.zeros(len(pattern.flat), dtype=wide)
    places = torch.sparse_csr_tensor(pattern.rows, pattern.columns, zeros, (left.shape[1], right.shape[1]))
    return torch.sparse.sampled_addmm(places, left.T.to(wide), right.to(wide), beta=0.0).values()


@functools.cache
def _expect_sparse() -> None:
    """Hear torch's remark that sparse CSR tensors are in beta, which it makes once per process, and drop it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor([0, 1], [0], [0.0], (1, 1))
