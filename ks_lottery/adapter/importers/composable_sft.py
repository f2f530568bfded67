"""Files of composable-sft (LT-SFT): `pytorch_diff.bin`.

The file is one dictionary that `torch.save` wrote: `diffs` (in older files `body`) maps parameter names to what is
added to them, `abs` (`head`) to whole new values, as a rule of the model's head. A difference is a sparse tensor, or
its encoding: the `size`, the `values`, and as `index_steps` the first position and the distances between the following
ones, where positions count into the parameter flattened with the FIRST dimension fastest.

Source:
    Ansell et al. 2022, Composable Sparse Fine-Tuning; the format was read off the files' definition in
    cambridgeltl/composable-sft, and is written from scratch here.
"""

import zipfile
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

    Returns:
        the changes; tensors in `whole` are sparse where the file has them so.

    Raises:
        CheckpointError: if the file holds more than tensors, numbers and names, or something else than described above.
    """
    content = load_tensors(file, source)
    try:
        return _update(content, source)
    except (TypeError, ValueError, OverflowError, RuntimeError, IndexError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{source!r} holds values that no sparse fine-tuning has ({str(error)[:200]}); it is damaged. Get it again."
        ) from error


def _update(content: Any, source: str) -> SparseUpdate:
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
    whole = {name: _tensor(name, value, source) for name, value in content.get(spelling[1], {}).items()}
    return SparseUpdate(source, "composable-sft", changes, whole)


def load_tensors(file: Path, source: str) -> Any:
    """Read what `torch.save` wrote, as far as it consists of tensors and plain values; no code in it is run.

    Raises:
        CheckpointError: if it holds anything else, is no such file, or would take more memory than it has bytes.
    """
    _require_stored(file, source)
    try:
        # A sparse tensor whose indices lie outside of its shape is refused here; torch does not look by itself.
        with torch.serialization.safe_globals(_NUMPY_NUMBERS), torch.sparse.check_sparse_tensor_invariants():
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # what the unpickler meets in a damaged file, it raises in a dozen ways
        first = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise CheckpointError(
            f"{source!r} cannot be read without running code that it may hold ({first}). Open it where you trust it, "
            "and save a dictionary of plain tensors with torch.save."
        ) from error


def _require_stored(file: Path, source: str) -> None:
    """Check that a zip archive holds its parts as they are and each once, as those of `torch.save` do.

    Raises:
        CheckpointError: if not: compressed or overlapping parts unpack to any multiple of the file.
    """
    if not zipfile.is_zipfile(file):
        return
    try:
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise CheckpointError(f"{source!r} is a damaged zip archive ({error}). Get it again.") from error
    size = file.stat().st_size
    unpacked = sum(part.file_size for part in parts)
    if unpacked > size or any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise CheckpointError(
            f"{source!r} is a zip archive of {size} bytes whose {len(parts)} parts unpack to {unpacked}, and what "
            "torch.save writes does not unpack. Open it where you trust it, and save it again with torch.save."
        )


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


def _tensor(name: str, value: Any, source: str) -> Tensor:
    """A whole tensor; a sparse one stays sparse, since its shape is not yet known to be that of a parameter."""
    if isinstance(value, Tensor):
        return value
    shape, places, values = _decoded(name, value, source)
    index = torch.from_numpy(np.stack(np.unravel_index(places, shape, order="F")))
    return torch.sparse_coo_tensor(index, values, shape, check_invariants=True)
