"""A saved adapter that somebody else wrote: checked part by part before any of it is used."""

import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ks_lottery.checkpoints.safetensors_file import SafetensorsFile
from ks_lottery.checkpoints.strict_json import strict_json_file
from ks_lottery.errors import AdapterError, CheckpointError

if TYPE_CHECKING:
    from ks_lottery.adapter.config import LotteryConfig

_WEIGHTS = "adapter_model.safetensors"
_AGAIN = "Get the adapter again, or save it again with save_pretrained."


def read_config_file(path: Path, forbidden: Sequence[str]) -> dict[str, Any]:
    """The values in an `adapter_config.json`.

    Args:
        path: of the file.
        forbidden: keys that it never has.

    Raises:
        AdapterError: if it is no JSON object, ambiguous, too large, or has a forbidden key.
    """
    try:
        values = strict_json_file(path)
    except ValueError as error:
        raise AdapterError(f"{str(path)!r} cannot be read ({error}). {_AGAIN}") from error
    if not isinstance(values, dict):
        raise AdapterError(f"{str(path)!r} is {reprlib.repr(values)}, which must be an object. {_AGAIN}")
    found = [key for key in forbidden if values.get(key) is not None]
    if found:
        raise AdapterError(
            f"{str(path)!r} has {found[0]!r}, which is never written there: positions lie beside the values in "
            f"{_WEIGHTS!r}. {_AGAIN}"
        )
    return values


def require_whole_weights(folder: Path) -> None:
    """Check that the weights of a local adapter, if there are any, are a whole safetensors file; its header is read.

    Raises:
        AdapterError: if not.
    """
    file = folder / _WEIGHTS
    if file.is_file():
        try:
            SafetensorsFile(file)
        except CheckpointError as error:
            raise AdapterError(f"The weights of the adapter in {str(folder)!r} cannot be read. {error}") from error


def require_fields(config: "LotteryConfig") -> None:
    """Check the types of a configuration's fields.

    Raises:
        AdapterError: with the field and its value.
    """
    for option in ("rows", "columns", "entries"):
        counts = getattr(config, option)
        if not _is_map(counts) or not all(type(count) is int and 0 < count < 2**63 for count in counts.values()):
            raise _wrong(option, counts, "an object of names and numbers of 1 or more")
    if not _is_map(config.tied_modules) or not all(map(_are_names, config.tied_modules.values())):
        raise _wrong("tied_modules", config.tied_modules, "an object of names and lists of names")
    if config.ticket is not None and not isinstance(config.ticket, str):
        raise _wrong("ticket", config.ticket, "a fingerprint")
    if config.modules_to_save is not None and not _are_names(config.modules_to_save):
        raise _wrong("modules_to_save", config.modules_to_save, "a list of names")


def require_index(index: Tensor, count: int, size: int, where: str) -> None:
    """Check positions that come from a file against the parameter that they count in.

    Args:
        index: what the file has.
        count: how many there should be.
        size: of the parameter along the dimension that they count.
        where: their name, for messages.

    Raises:
        AdapterError: if they are no [count] integers, sorted, each once, from 0 to size - 1.
    """
    if index.is_floating_point() or index.is_complex() or index.dtype.itemsize == 1 or tuple(index.shape) != (count,):
        raise AdapterError(
            f"{where[:200]!r} is {index.dtype} of shape {tuple(index.shape)}, where {count} positions should be. "
            f"{_AGAIN}"
        )
    if index.is_meta or not count:
        return
    if int(index[0]) < 0 or int(index[-1]) >= size or not bool((index[:-1] < index[1:]).all()):
        raise AdapterError(
            f"{where[:200]!r} goes from {int(index[0])} to {int(index[-1])}; positions must be sorted, each once, "
            f"and from 0 to {size - 1}. {_AGAIN}"
        )


def require_values(values: Tensor, shape: Sequence[int], where: str) -> None:
    """Check what is added at positions that come from a file; arguments as `require_index`.

    Raises:
        AdapterError: if it is of another shape, or no float.
    """
    if tuple(values.shape) != tuple(shape) or not values.is_floating_point():
        raise AdapterError(
            f"{where[:200]!r} is {values.dtype} of shape {tuple(values.shape)}, where floats of shape {tuple(shape)} "
            f"should be. {_AGAIN}"
        )


def _is_map(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def _are_names(value: Any) -> bool:
    return isinstance(value, list | tuple | set) and all(isinstance(name, str) for name in value)


def _wrong(option: str, value: Any, wanted: str) -> AdapterError:
    return AdapterError(f"LotteryConfig({option}={reprlib.repr(value)}): must be {wanted}. {_AGAIN}")
