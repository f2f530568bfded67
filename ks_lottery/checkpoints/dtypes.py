"""Dtypes of stored tensors: how a safetensors file spells them, how torch does, and how many bytes a value takes."""

from ks_lottery.errors import CheckpointError
from ks_lottery.stats.floats import FORMATS, FloatFormat

TORCH_NAMES: dict[str, str] = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "C64": "complex64",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}

ITEM_BYTES: dict[str, int] = {
    **dict.fromkeys(("float64", "complex64", "int64", "uint64"), 8),
    **dict.fromkeys(("float32", "int32", "uint32"), 4),
    **dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 2),
    **dict.fromkeys(("int8", "uint8", "bool"), 1),
    **{name: 1 for name in TORCH_NAMES.values() if name.startswith("float8")},
}


def float_format(dtype: str, name: str, where: str) -> FloatFormat:
    """Layout of a dtype whose values can be compared bit by bit as floats.

    Args:
        dtype: as torch spells it.
        name: the tensor, for the message.
        where: the file or checkpoint that it lies in, for the message.

    Raises:
        CheckpointError: if it is none of `stats.floats.FORMATS`.
    """
    if dtype not in FORMATS:
        raise CheckpointError(
            f"{name[:200]!r} in {where!r} is {dtype[:40]}, which is not compared as floats; that works for "
            f"{', '.join(FORMATS)}. Load the model in one of these dtypes and save it again."
        )
    return FORMATS[dtype]
