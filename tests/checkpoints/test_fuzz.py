"""Damaged files are either read as they were or refused: never another exception, never other numbers by accident."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.checkpoints.safetensors_file import SafetensorsFile
from ks_lottery.errors import CheckpointError

MANY = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
DATA = bytes(range(64))
HEADER = {
    "__metadata__": {"format": "pt"},
    "embed": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "half": {"dtype": "BF16", "shape": [4, 2], "data_offsets": [24, 40]},
    "codes": {"dtype": "U8", "shape": [16], "data_offsets": [40, 56]},
    "scalar": {"dtype": "I64", "shape": [], "data_offsets": [56, 64]},
    "empty": {"dtype": "F16", "shape": [0, 5], "data_offsets": [24, 24]},
}
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(0, 100),
    st.sampled_from([2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64]),
    st.floats(),
    st.sampled_from(["", "F32", "F64", "I32", "F4", "X", "../x", "\0", "\ud800", "pt"]),
    st.lists(st.integers(-1, 2**64), max_size=5),
    st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "x"]), st.integers(), max_size=3),
)


def content(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Every tensor of a file, read through every door that its dtype opens."""
    file = SafetensorsFile(path)
    found = {}
    for name, entry in file.entries.items():
        assert 0 <= entry.begin <= entry.end <= path.stat().st_size
        doors: list[Callable[[str], Any]] = [file.bits, file.array, file.rows]
        values = b""
        for door in doors:
            try:
                assert tuple(door(name).shape) == entry.shape
            except CheckpointError:
                continue
        if entry.readable:
            values = file._bytes(name)[0].tobytes()
            assert values == path.read_bytes()[entry.begin : entry.end]
        file.release(name)
        found[name] = (entry.dtype, entry.shape, values)
    return found


def refused_or_read(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]] | None:
    try:
        return content(path)
    except CheckpointError as error:
        message = str(error)
    assert str(path) in message
    assert len(message) < 2000
    return None


def file_with(header: bytes, data: bytes = DATA) -> bytes:
    return len(header).to_bytes(8, "little") + header + data


WHOLE = file_with(json.dumps(HEADER).encode())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.safetensors"


@MANY
@given(data=st.data())
def test_bytes_that_changed(data: st.DataObject, path: Path) -> None:
    """Flip, insert and delete bytes before the tensors, with and without a length prefix that knows of it."""
    path.write_bytes(WHOLE)
    expected = content(path)
    damaged = bytearray(WHOLE[8 : len(WHOLE) - len(DATA)])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        what = data.draw(st.sampled_from(["flip", "insert", "delete"]))
        if what == "flip":
            damaged[place] ^= data.draw(st.integers(1, 255))
        elif what == "insert":
            damaged[place:place] = data.draw(st.binary(min_size=1, max_size=3))
        else:
            del damaged[place]
    prefix = len(damaged) if data.draw(st.booleans()) else data.draw(st.integers(0, 2**64 - 1))
    path.write_bytes(prefix.to_bytes(8, "little") + damaged + DATA)
    found = refused_or_read(path)
    if found is not None:
        assert sum(len(values) for _, _, values in found.values()) <= len(DATA)
        for name in found.keys() & expected.keys():
            if found[name][:2] == expected[name][:2]:
                assert len(found[name][2]) == len(expected[name][2])


@MANY
@given(data=st.data())
def test_truncated_and_extended_files(data: st.DataObject, path: Path) -> None:
    cut = data.draw(st.integers(0, len(WHOLE) - 1))
    path.write_bytes(WHOLE[:cut] if data.draw(st.booleans()) else WHOLE + bytes(1 + cut))
    assert refused_or_read(path) is None


@MANY
@given(data=st.data())
def test_values_of_the_header_that_changed(data: st.DataObject, path: Path) -> None:
    """A change of one JSON value is refused, unless what it says is as consistent as what it replaced."""
    path.write_bytes(WHOLE)
    expected = content(path)
    header = json.loads(json.dumps(HEADER))
    name = data.draw(st.sampled_from(sorted(HEADER)))
    field = data.draw(st.sampled_from([None, *sorted(header[name])]))
    new = data.draw(VALUES)
    if field is None:
        header[name] = new
    elif isinstance(header[name][field], list) and header[name][field] and data.draw(st.booleans()):
        header[name][field][data.draw(st.integers(0, len(header[name][field]) - 1))] = new
    else:
        header[name][field] = new
    path.write_bytes(file_with(json.dumps(header).encode()))
    found = refused_or_read(path)
    if found is not None:
        for other in expected:
            if other != name:
                assert found[other] == expected[other]
        if name != "__metadata__":
            assert found[name][2] in (expected[name][2], b"")


@MANY
@given(order=st.permutations(sorted(HEADER)), spaces=st.text(" ", max_size=20))
def test_order_and_padding_of_the_header_do_not_matter(order: list[str], spaces: str, path: Path) -> None:
    path.write_bytes(WHOLE)
    expected = content(path)
    path.write_bytes(file_with((json.dumps({name: HEADER[name] for name in order}) + spaces).encode()))
    assert content(path) == expected


@settings(MANY, max_examples=100)
@given(data=st.data())
def test_any_json_in_the_place_of_index_and_config(data: st.DataObject, tmp_path: Path) -> None:
    anything = st.recursive(
        VALUES, lambda inner: st.dictionaries(st.sampled_from(["weight_map", "model_type", "a"]), inner), max_leaves=6
    )
    (tmp_path / "x.safetensors").write_bytes(WHOLE)
    index = {"weight_map": data.draw(st.dictionaries(st.sampled_from(["embed", "\0", "b"]), anything, max_size=3))}
    if data.draw(st.booleans()):
        index = data.draw(anything)
    config = {"model_type": "llama"} if data.draw(st.booleans()) else data.draw(anything)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    message, shapes = "", []
    try:
        checkpoint = open_checkpoint(tmp_path)
        shapes = [checkpoint.shape(name) for name in checkpoint.names()]
    except CheckpointError as error:
        message = str(error)
    assert all(shape == (2, 3) for shape in shapes)
    assert not message or str(tmp_path) in message
