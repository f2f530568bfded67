"""JSON from a file that somebody else wrote: either one unambiguous value, or one error."""

import json
from pathlib import Path
from typing import Any

LONGEST = 100_000_000  # bytes; the limit that the safetensors library sets to headers
_MOST_MARKS = 2**22


def strict_json_file(path: Path) -> Any:
    """Parse a JSON file; as `strict_json`.

    Raises:
        ValueError: also if it has more than 100 MB.
    """
    size = path.stat().st_size
    if size > LONGEST:
        raise ValueError(f"it has {size} bytes, at most {LONGEST} are read")
    return strict_json(path.read_bytes())


def strict_json(content: bytes) -> Any:
    """Parse JSON text.

    Args:
        content: UTF-8.

    Returns:
        dicts, lists, strings, numbers (NaN and Infinity too), booleans and None.

    Raises:
        ValueError: if it is not UTF-8, not JSON, nested too deeply, names a key twice, holds text that is no Unicode,
            or more lists, objects and commas than any model needs (4 million, which bounds the memory it can take).
    """
    marks = sum(map(content.count, (b"{", b"[", b",")))
    if marks > _MOST_MARKS:
        raise ValueError(f"it has {marks} lists, objects and commas, at most {_MOST_MARKS} are read")
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_unambiguous)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except MemoryError as error:
        raise ValueError(f"its {len(content)} bytes do not fit into memory") from error


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"it names {twice[:200]!r} twice")
    for key in value:
        key.encode()
    return value
