"""Floating-point values as bit patterns: what the engine reads, without torch, in every dtype of a checkpoint."""

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard, Union

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypeIs

from ks_lottery.errors import UnitError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class FloatFormat:
    """How a dtype lays out its bits.

    Attributes:
        name: as torch and numpy spell it.
        integer: numpy name of the signed integer of the same width.
        exponent: mask of the exponent bits; a value is NaN or infinite exactly if all of them are set.
    """

    name: str
    integer: str
    exponent: int


FORMATS: dict[str, FloatFormat] = {
    entry.name: entry
    for entry in (
        FloatFormat("float16", "int16", 0x7C00),
        FloatFormat("bfloat16", "int16", 0x7F80),
        FloatFormat("float32", "int32", 0x7F800000),
        FloatFormat("float64", "int64", 0x7FF0000000000000),
    )
}

Values = Union["torch.Tensor", NDArray[Any], "FloatBits"]

MIN_VALUES_PER_UNIT = 8
"""Smaller samples are refused: their distributions hardly differ for certain."""


@dataclass(frozen=True, slots=True)
class FloatBits:
    """An array of floats given by its bits; the only form in which numpy can hold bfloat16.

    Attributes:
        array: signed integers of the width of the dtype, any shape; usually a view of somebody's memory.
        dtype: a key of `FORMATS`.
    """

    array: NDArray[Any]
    dtype: str

    def __post_init__(self) -> None:
        format_of(self.dtype, "bits")
        if self.array.dtype != FORMATS[self.dtype].integer:
            raise UnitError(
                f"Bits of {self.dtype} are {FORMATS[self.dtype].integer}, got an array of {self.array.dtype}. "
                f"View the bytes as {FORMATS[self.dtype].integer}."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.array.shape

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: Any) -> "FloatBits":
        return FloatBits(self.array[index], self.dtype)

    def reshape(self, *shape: int) -> "FloatBits":
        """The same values in another shape."""
        return FloatBits(self.array.reshape(*shape), self.dtype)

    def values(self) -> NDArray[np.floating]:
        """The numbers: a view, or float32 for bfloat16, which is exact."""
        if self.dtype != "bfloat16":
            return self.array.view(self.dtype)
        return (self.array.astype(np.int32) << 16).view(np.float32)

    def finite(self) -> NDArray[np.bool_]:
        """Which values are neither NaN nor infinite; the shape of the array."""
        exponent = self.array.dtype.type(FORMATS[self.dtype].exponent)
        return (self.array & exponent) != exponent

    def keys(self) -> NDArray[np.signedinteger]:
        """Integers in the order of the values, -0.0 and 0.0 one key; a copy, of the same width."""
        magnitude = self.array.dtype.type(np.iinfo(self.array.dtype).max)
        return np.where(self.array < 0, -(self.array & magnitude), self.array)


def bits_of(values: Values, name: str = "values") -> FloatBits:
    """View floats as bits; a tensor on an accelerator is copied to the CPU.

    Args:
        values: numpy float array, torch float tensor, or bits, which are passed through.
        name: what they belong to, for error messages.

    Raises:
        UnitError: if the dtype is not in `FORMATS`.
    """
    if isinstance(values, FloatBits):
        return values
    dtype = dtype_of(values)
    integer = format_of(dtype, name).integer
    if is_tensor(values):
        import torch

        return FloatBits(values.detach().cpu().view(getattr(torch, integer)).numpy(), dtype)
    return FloatBits(values.view(integer), dtype)


def dtype_of(values: Values) -> str:
    """Name of the dtype of values, as `FORMATS` spells it."""
    return values.dtype if isinstance(values, FloatBits) else str(values.dtype).removeprefix("torch.")


def format_of(dtype: str, name: str) -> FloatFormat:
    """Layout of a dtype.

    Raises:
        UnitError: if it is not in `FORMATS`; `name` says whose dtype it is.
    """
    if dtype not in FORMATS:
        raise UnitError(f"{name!r}: dtype {dtype} has no KS test here. Cast to one of: {', '.join(FORMATS)}.")
    return FORMATS[dtype]


def is_tensor(values: object) -> "TypeIs[torch.Tensor]":
    """Whether this is a torch tensor; torch is not imported to find out."""
    return "torch" in sys.modules and isinstance(values, sys.modules["torch"].Tensor)


def on_gpu(values: object) -> "TypeGuard[torch.Tensor]":
    """Whether this is a tensor in the memory of a CUDA or ROCm device."""
    return is_tensor(values) and values.device.type == "cuda"
