"""Bad files, written by hand."""

import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def safetensors_bytes(header: bytes | Mapping[str, Any], data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file; `length` is what its first eight bytes claim, the truth if None."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode("utf-8", "surrogatepass")
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(dtype: str, shape: list[Any], begin: Any, end: Any) -> dict[str, Any]:
    """What a header says of one tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def with_header(file: bytes, change: Callable[[dict[str, Any]], Any], key: str = "ks_lottery_ticket") -> bytes:
    """A ticket's file whose header went through `change`, which changes it in place or returns a list."""
    length = int.from_bytes(file[:8], "little")
    outer = json.loads(file[8 : 8 + length])
    inner = json.loads(outer["__metadata__"][key])
    changed = change(inner)
    outer["__metadata__"][key] = json.dumps(changed if isinstance(changed, list) else inner)
    return safetensors_bytes(outer, file[8 + length :])


class _Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def malicious_pickle(mark: Path) -> bytes:
    """A pickle that makes the folder `mark` when it is loaded."""
    return pickle.dumps(_Payload(mark))
