"""Frozen stays frozen: a digest of every frozen weight, taken once and compared later."""

from collections.abc import Iterator
from typing import Any

import torch

from ks_lottery.errors import FrozenWeightMovedError

_CHUNK_VALUES = 2**22
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class FrozenWeights:
    """Remembers the bits of all parameters with `requires_grad=False`, one 64-bit digest per row.

    A row's digest is the sum over its values of an invertible mix of the bits and the place, modulo 2^64: one changed
    value always shows, several cancel with a chance below 2^-40.

    Args:
        model: the model, before training.

    Cost:
        Reads each frozen weight once, on its own device; keeps 8 bytes per row (per value of vectors).
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._digests = {
            name: row_digests(parameter) for name, parameter in model.named_parameters() if not parameter.requires_grad
        }

    def __len__(self) -> int:
        return len(self._digests)

    def check(self, model: torch.nn.Module, when: str, optimizer: Any = None) -> None:
        """Compare with the weights of now.

        Args:
            model: the same model.
            when: how the message says when ("by step 100").
            optimizer: the running optimizer, to name the likely cause.

        Raises:
            FrozenWeightMovedError: if a bit changed; with the parameter, how many of its rows, and the likely cause.
        """
        moved = []
        parameters = dict(model.named_parameters())
        for name, digests in self._digests.items():
            if name in parameters:
                rows = (row_digests(parameters[name]) != digests).nonzero().flatten().tolist()
                if rows:
                    moved.append((name, rows, len(digests)))
        if moved:
            name, rows, total = moved[0]
            others = f", and so did {len(moved) - 1} more frozen parameters" if moved[1:] else ""
            raise FrozenWeightMovedError(
                f"{name!r} was frozen when training began, but {when} it had changed in {len(rows)} of {total} rows "
                f"(at least {len(rows)} values; first: row {rows[0]}){others}. "
                f"{_likely_cause(parameters[name], optimizer)}"
            )


def row_digests(parameter: torch.Tensor) -> torch.Tensor:
    """One digest per row of a tensor.

    Args:
        parameter: any shape and dtype; a scalar is one row.

    Returns:
        [rows] int64 on the CPU.
    """
    if parameter.numel() == 0:
        return torch.empty(0, dtype=torch.int64)
    rows = parameter.detach().reshape(parameter.shape[0] if parameter.dim() else 1, -1)
    generator = torch.Generator().manual_seed(rows.shape[1])
    factors = torch.randint(-(2**62), 2**62, (rows.shape[1],), generator=generator, dtype=torch.int64) * 2 + 1
    factors = factors.to(rows.device)
    return torch.cat([_mixed(bits, factors).sum(dim=1).cpu() for bits in _bits(rows)])


def _bits(rows: torch.Tensor) -> Iterator[torch.Tensor]:
    """[rows, columns] values as int64 bit patterns, a bounded number of rows at a time."""
    step = max(1, _CHUNK_VALUES // rows.shape[1])
    for start in range(0, rows.shape[0], step):
        yield rows[start : start + step].contiguous().view(_BITS[rows.element_size()]).to(torch.int64)


def _mixed(bits: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Multiplying by an odd number and folding the upper half down are both invertible modulo 2^64."""
    product = bits * factors
    return (product ^ (product >> 32)) * factors


def _likely_cause(parameter: torch.nn.Parameter, optimizer: Any) -> str:
    for group in getattr(optimizer, "param_groups", ()):
        if any(held is parameter for held in group["params"]):
            return (
                f"Likely cause: the optimizer holds it, with weight_decay={group.get('weight_decay', 0)} and "
                f"lr={group.get('lr')}. Give the optimizer trainable parameters only, or set requires_grad before the "
                "Trainer is made."
            )
    return (
        "The optimizer does not hold it. Likely cause: it shares memory with a trainable parameter (tied weights), or "
        "other code wrote to it (another callback, an in-place merge)."
    )
