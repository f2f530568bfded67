"""Mutations that keep a file's outer form, so that what comes behind the first check is reached too."""

import io
import json
import random
import zipfile
from collections.abc import Callable
from typing import Any

from tests.fuzz.seed_corpus import bundle, unbundle

_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 31, 32, 64, 65, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64, 10**30, -(2**63),
    0.5, -0.0, 1e308, float("inf"), float("nan"), "", "F32", "BF16", "I64", "F64", "U8", "F4", "x", "..", "../x", "/x",
    "\0", "\u202e", "indices", "input", "embed.weight", "norm.weight", "llama", "a" * 300, [], {}, [0], [0, 0],
    [1, 2, 3], [2**63], [[]], [None], {"": None}, {"lead": [0]}, {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
)  # fmt: skip
_NESTED = tuple(mark * depth for mark in ("[", '{"a":') for depth in (50, 900, 990, 1000, 5000))


def mutate(data: bytes, max_size: int, seed: int, plain: Callable[[bytes, int], bytes]) -> bytes:
    """Change an input.

    Args:
        data: the input.
        max_size: the most bytes that the result may have.
        seed: decides the change.
        plain: changes bytes without knowing what they are.

    Returns:
        another input; of the same outer form as a rule.
    """
    chance = random.Random(seed)
    if chance.random() < 0.1:
        return plain(data, max_size)
    files = unbundle(data)
    if files:
        name = chance.choice(list(files))
        if chance.random() < 0.03:
            del files[name]
        else:
            files[name] = _mutated_file(files[name], chance, plain)
        result = bundle(files)
    else:
        result = _mutated_file(data, chance, plain)
    return result if len(result) <= max_size else plain(data, max_size)


def _mutated_file(content: bytes, chance: random.Random, plain: Callable[[bytes, int], bytes]) -> bytes:
    length = int.from_bytes(content[:8], "little")
    if content[:1] == b"{":
        return _mutated_json(content, chance)
    if content[:2] == b"PK":
        return _mutated_archive(content, chance, plain)
    if not 2 <= length <= len(content) - 8:
        return plain(content, len(content) + 64)
    header, tensors = content[8 : 8 + length], content[8 + length :]
    way = chance.random()
    if way < 0.05:
        return (
            chance.choice((0, 1, length + 1, len(content), 2**40, 2**63, 2**64 - 1)).to_bytes(8, "little") + content[8:]
        )
    if way < 0.2:
        tensors = plain(tensors, len(tensors)) if tensors and chance.random() < 0.7 else tensors[:-1]
    else:
        header = _mutated_json(header, chance)
    return len(header).to_bytes(8, "little") + header + tensors


def _mutated_archive(content: bytes, chance: random.Random, plain: Callable[[bytes, int], bytes]) -> bytes:
    """A zip archive with one part changed, and sums that fit."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = {part: archive.read(part) for part in archive.namelist()}
    except Exception:
        return plain(content, len(content) + 64)
    if not parts:
        return plain(content, len(content) + 64)
    changed = chance.choice([*parts, next((part for part in parts if part.endswith("data.pkl")), next(iter(parts)))])
    parts[changed] = plain(parts[changed], len(parts[changed]) + 64)
    written = io.BytesIO()
    with zipfile.ZipFile(
        written, "w", zipfile.ZIP_DEFLATED if chance.random() < 0.05 else zipfile.ZIP_STORED
    ) as archive:
        for part, values in parts.items():
            archive.writestr(part, values)
    return written.getvalue()


def _mutated_json(text: bytes, chance: random.Random) -> bytes:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        value = _mutated_value(value, chance)
    written = json.dumps(value)
    if chance.random() < 0.05:
        place = chance.choice([i for i, mark in enumerate(written) if mark in ":,["] or [0])
        written = f"{written[: place + 1]}{chance.choice(_NESTED)}{written[place + 1 :]}"
    return written.encode("utf-8", "surrogatepass")


def _mutated_value(value: Any, chance: random.Random) -> Any:
    """The value with one place in it changed; JSON that stands in a string counts as part of it."""
    if isinstance(value, str) and value.startswith("{"):
        return _mutated_json(value.encode("utf-8", "surrogatepass"), chance).decode("utf-8", "surrogatepass")
    if not value or not isinstance(value, dict | list) or chance.random() < 0.1:
        return _replacement(value, chance)
    if isinstance(value, list):
        place = chance.randrange(len(value))
        return [*value[:place], *_instead(value[place], chance), *value[place + 1 :]]
    key = chance.choice(list(value))
    changed = {k: v for k, v in value.items() if k != key}
    way = chance.random()
    if way < 0.06:
        return changed
    if way < 0.12:
        return {**changed, str(chance.choice(_VALUES)): value[key]}
    if way < 0.18:
        return {**value, chance.choice(list(value)): value[key]}
    return {**changed, key: _mutated_value(value[key], chance)}


def _instead(value: Any, chance: random.Random) -> list[Any]:
    way = chance.random()
    return [] if way < 0.1 else [value, value] if way < 0.2 else [_mutated_value(value, chance)]


def _replacement(value: Any, chance: random.Random) -> Any:
    if isinstance(value, int) and chance.random() < 0.4:
        return value + chance.choice((-1, 1, 2, 8, -8, value))
    return chance.choice(_VALUES)
