"""Files of composable-sft (LT-SFT): `pytorch_diff.bin`.

The file is one dictionary that `torch.save` wrote: `diffs` (in older files `body`) maps parameter names to what is
added to them, `abs` (`head`) to whole new values, as a rule of the model's head. A difference is a sparse tensor, or
its encoding: the `size`, the `values`, and as `index_steps` the first position and the distances between the following
ones, where positions count into the parameter flattened with the FIRST dimension fastest.

Source:
    Ansell et al. 2022, Composable Sparse Fine-Tuning; the format was read off the files' definition in
    cambridgeltl/composable-sft, and is written from scratch here.
"""

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ks_lottery.adapter.importers.sparse_update import SparseChange, SparseUpdate, require_inside, sparse_change
from ks_lottery.errors import CheckpointError

FILE = "pytorch_diff.bin"
_SPELLINGS = (("diffs", "abs"), ("diff", "abs"), ("body", "head"))


def read_composable_sft(file: Path, source: str) -> SparseUpdate:
    """Read a `pytorch_diff.bin`.

    Args:
        file: the file.
        source: what to call it in messages.

    Raises:
        CheckpointError: if the file holds more than tensors, numbers and names, or something else than described above.
    """
    content = load_tensors(file, source)
    spelling = next((s for s in _SPELLINGS if isinstance(content, dict) and s[0] in content), None)
    if spelling is None or not all(isinstance(content.get(key, {}), dict) for key in spelling):
        keys = ", ".join(map(repr, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(
            f"{source!r} is no sparse fine-tuning of composable-sft: it holds {keys}, not 'diffs' (or 'body'). Files "
            "of its first versions, which hold objects of its own classes, have to be saved again with a later one."
        )
    extra = [key for key, value in content.items() if key not in spelling and value]
    if extra:
        raise CheckpointError(f"{source!r} also holds {', '.join(map(repr, extra))}, which is not read here.")
    changes = dict(_changes(content[spelling[0]], source))
    whole = {name: _dense(name, value, source) for name, value in content.get(spelling[1], {}).items()}
    return SparseUpdate(source, "composable-sft", changes, whole)


def load_tensors(file: Path, source: str) -> Any:
    """Read what `torch.save` wrote, as far as it consists of tensors and plain values; no code in it is run.

    Raises:
        CheckpointError: if it holds anything else, or is no such file.
    """
    try:
        with torch.serialization.safe_globals(_NUMPY_NUMBERS):
            return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{source!r} cannot be read without running code that it may hold ({str(error).splitlines()[0]}). Open it "
            "where you trust it, and save a dictionary of plain tensors with torch.save."
        ) from error


def _numpy_numbers() -> list[Any]:
    """What the first of the `index_steps` is made of: a number of numpy. Building one runs no code of the file."""
    scalar = np.int64(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    return [*((scalar, name) for name in names), np.dtype, type(np.dtype(np.int64)), type(np.dtype(np.int32))]


_NUMPY_NUMBERS = _numpy_numbers()


def _changes(diffs: Mapping[str, Any], source: str) -> Iterator[tuple[str, SparseChange]]:
    for name, value in diffs.items():
        if isinstance(value, Tensor):
            sparse = value.to_sparse().coalesce()
            shape = tuple(sparse.shape)
            index = np.ravel_multi_index(tuple(sparse.indices().numpy()), shape)
            yield name, sparse_change(source, name, index, sparse.values(), shape)
        else:
            shape, places, values = _decoded(name, value, source)
            index = np.ravel_multi_index(np.unravel_index(places, shape, order="F"), shape)
            yield name, sparse_change(source, name, index, values, shape)


def _decoded(name: str, value: Any, source: str) -> tuple[tuple[int, ...], np.ndarray, Tensor]:
    """Shape, positions with the first dimension fastest, and values of an encoded difference."""
    fields = value if isinstance(value, dict) else {}
    size, steps, values = (fields.get(key) for key in ("size", "index_steps", "values"))
    if size is None or steps is None or not isinstance(values, Tensor):
        raise CheckpointError(
            f"{source!r} has a {type(value).__name__} for {name!r}, which is neither a tensor nor a dictionary of "
            "size, index_steps and values; it is damaged."
        )
    shape = tuple(int(length) for length in size)
    places = np.cumsum(np.asarray(steps, dtype=np.int64))
    require_inside(source, name, places, shape)
    return shape, places, values


def _dense(name: str, value: Any, source: str) -> Tensor:
    if not isinstance(value, Tensor):
        shape, places, values = _decoded(name, value, source)
        index = torch.from_numpy(np.stack(np.unravel_index(places, shape, order="F")))
        value = torch.sparse_coo_tensor(index, values, shape, check_invariants=True)
    return value.to_dense() if value.is_sparse else value
