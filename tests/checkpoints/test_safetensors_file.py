"""One file: every dtype is listed, pieces are views, and a header that lies ends in one clear error."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ks_lottery.checkpoints import safetensors_header, strict_json
from ks_lottery.checkpoints.dtypes import ITEM_BYTES, TORCH_NAMES
from ks_lottery.checkpoints.safetensors_file import SafetensorsFile
from ks_lottery.errors import CheckpointError
from ks_lottery.stats.floats import FORMATS, bits_of

HUGE = 2**63


def written(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    """A file with this header, given as JSON values or as bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: Any = "F32", shape: Any = (2,), begin: Any = 0, end: Any = 8) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape) if isinstance(shape, tuple) else shape, "data_offsets": [begin, end]}


def test_every_dtype_of_torch_is_read(tmp_path: Path) -> None:
    names = [name for name in ITEM_BYTES if name != "float8_e8m0fnu"]
    tensors = {name: torch.arange(6).reshape(2, 3).to(getattr(torch, name)) for name in names}
    save_file(tensors, tmp_path / "x.safetensors")
    file = SafetensorsFile(tmp_path / "x.safetensors")
    assert {name: entry.dtype for name, entry in file.entries.items()} == {name: name for name in names}
    for name, tensor in tensors.items():
        assert file.rows(name).dtype == tensor.dtype
        assert torch.equal(file.rows(name, 1).view(torch.uint8), tensor[1:].view(torch.uint8))
        if name in FORMATS:
            assert file.bits(name).dtype == name
            assert np.array_equal(file.bits(name, 0, 1).array, bits_of(tensor[:1]).array)
        else:
            with pytest.raises(CheckpointError, match=f"'{name}' in .* is {name}, which is not compared as floats"):
                file.bits(name)
        if name.startswith(("bfloat", "float8")):
            with pytest.raises(CheckpointError, match=f"is {name}, which numpy lacks. Read it with bits or rows"):
                file.array(name)
        else:
            assert np.array_equal(file.array(name), tensor.numpy())


def test_dtypes_that_nothing_reads_are_listed_with_their_size(tmp_path: Path) -> None:
    header = {"codes": entry("F4", (4, 4), 0, 8), "new": entry("X9", (3,), 8, 11), "plain": entry("U8", (1,), 11, 12)}
    file = SafetensorsFile(written(tmp_path / "x.safetensors", header, bytes(12)))
    sizes = {name: (entry.dtype, entry.shape, entry.end - entry.begin) for name, entry in file.entries.items()}
    assert sizes == {"codes": ("F4", (4, 4), 8), "new": ("X9", (3,), 3), "plain": ("uint8", (1,), 1)}
    assert file.rows("plain").tolist() == [0]
    for read in (file.rows, file.array):
        with pytest.raises(
            CheckpointError, match="'codes' in .* is F4, which is not read here; that works for float64"
        ):
            read("codes")
    with pytest.raises(CheckpointError, match="'new' in .* is X9, which is not compared as floats"):
        file.bits("new")


def test_names_and_sizes_of_dtypes_are_torchs() -> None:
    for name in TORCH_NAMES.values():
        assert getattr(torch, name).itemsize == ITEM_BYTES[name]
    assert set(ITEM_BYTES) == set(TORCH_NAMES.values())


def test_pieces_are_slices(tmp_path: Path) -> None:
    tensor = torch.arange(12.0).reshape(6, 2)
    save_file({"a": tensor}, tmp_path / "x.safetensors")
    file = SafetensorsFile(tmp_path / "x.safetensors")
    for start, stop in ((0, None), (2, 4), (-2, None), (4, 99), (5, 2), (99, 100), (-99, 1)):
        assert torch.equal(file.rows("a", start, stop), tensor[start:stop])
        assert np.array_equal(file.bits("a", start, stop).values(), tensor[start:stop].numpy())


def test_scalars_and_empty_tensors(tmp_path: Path) -> None:
    save_file({"scalar": torch.tensor(3.0), "empty": torch.zeros(0, 4), "thin": torch.zeros(3, 0)}, tmp_path / "x")
    file = SafetensorsFile(tmp_path / "x")
    assert [file.rows("scalar").item(), file.bits("scalar").values().item(), file.array("scalar").item()] == [3.0] * 3
    assert file.rows("scalar", 5, 7).shape == ()
    for name, shape in (("empty", (0, 4)), ("thin", (3, 0))):
        assert file.rows(name).shape == file.bits(name).shape == file.array(name).shape == shape
        file.release(name)


def test_tensors_at_odd_places_are_aligned(tmp_path: Path) -> None:
    header = {"byte": entry("U8", (1,), 0, 1), "float": entry("F32", (2,), 1, 9)}
    data = b"\0" + np.array([1.5, -2.0], dtype=np.float32).tobytes()
    bits = SafetensorsFile(written(tmp_path / "x", header, data)).bits("float")
    assert bits.array.flags.aligned
    assert bits.values().tolist() == [1.5, -2.0]


def test_released_pages_are_read_again(tmp_path: Path) -> None:
    save_file({"a": torch.arange(5000.0)}, tmp_path / "x")
    file = SafetensorsFile(tmp_path / "x")
    bits = file.bits("a")
    file.release("a")
    assert np.array_equal(bits.values(), np.arange(5000.0))


def test_a_file_may_be_larger_than_the_memory(tmp_path: Path) -> None:
    """The file has a hole, so that it takes no disk."""
    rows = 2**21
    size = rows * 2**19  # 1 TB
    path = written(tmp_path / "x", {"a": entry("BF16", (rows, 2**18), 0, size)})
    try:
        os.truncate(path, path.stat().st_size + size)
    except OSError:
        pytest.skip("this file system has no files of a terabyte")
    file = SafetensorsFile(path)
    assert not file.bits("a", rows - 1).array.any()
    assert file.rows("a", 7, 8).shape == (1, 2**18)


def test_a_file_that_shrinks_is_not_read_on(tmp_path: Path) -> None:
    save_file({"a": torch.arange(5000.0)}, tmp_path / "x")
    file = SafetensorsFile(tmp_path / "x")
    os.truncate(tmp_path / "x", 300)
    with pytest.raises(CheckpointError, match="shrank from .* to 300 bytes since it was opened"):
        file.bits("a")


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(CheckpointError, match="There is no file"):
            SafetensorsFile(path)


def test_metadata_is_kept_and_names_are_only_names(tmp_path: Path) -> None:
    names = ["../../etc/passwd", "a\0b", "C:\\x", "", " ", "ключ", "__proto__"]
    save_file({name: torch.ones(1) for name in names}, tmp_path / "x", metadata={"format": "pt"})
    file = SafetensorsFile(tmp_path / "x")
    assert sorted(file.entries) == sorted(load_file(tmp_path / "x"))
    assert file.metadata == {"format": "pt"}
    assert all(file.rows(name) == 1.0 for name in names)
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": entry(end=4)}, "has shape"),
        ({"a": entry(shape=(-1,), end=4)}, "of whole numbers"),
        ({"a": entry(shape=(2**40,), end=2**42)}, "is truncated"),
        ({"a": entry(shape=(1,), begin=4)}, "where byte 0 comes next"),
        ({"a": entry(), "b": entry(begin=4, end=12)}, "where byte 8 comes next"),
        ({"a": entry(), "b": entry(begin=0, end=8)}, "where byte 8 comes next"),
        ({"a": entry(begin=8, end=0)}, "where byte 0 comes next"),
        ({"a": entry(shape=(0,), begin=0, end=0), "b": entry("X9", (1,), 0, -8)}, "of whole numbers"),
        ({"a": entry("X9", (1,), 0, 8), "b": entry("X9", (1,), 8, 4)}, "where byte 8 comes next"),
        ({"a": entry(shape=(1,), end=4)}, "4 bytes behind its last tensor"),
        ({}, "8 bytes behind its last tensor"),
        ({"a": 3}, "of whole numbers, not 3"),
        ({"a": None}, "of whole numbers"),
        ({"a": {}}, "of whole numbers"),
        ({"a": entry(dtype=4)}, "should have a dtype"),
        ({"a": entry(shape="2")}, "of whole numbers"),
        ({"a": entry(shape={"0": 2})}, "of whole numbers"),
        ({"a": entry(shape=(2.0,))}, "of whole numbers"),
        ({"a": entry(shape=(True, 2))}, "of whole numbers"),
        ({"a": entry(shape=(None,))}, "of whole numbers"),
        ({"a": entry(end=8.0)}, "of whole numbers"),
        ({"a": entry(end="8")}, "of whole numbers"),
        ({"a": entry() | {"data_offsets": [0, 8, 8]}}, "of whole numbers"),
        ({"a": entry() | {"data_offsets": 8}}, "of whole numbers"),
        ({"a": entry(shape=(HUGE,))}, "of whole numbers"),
        ({"a": entry(end=HUGE)}, "of whole numbers"),
        ({"a": entry(shape=(2**40, 2**40))}, "impossible shape"),
        ({"a": entry(shape=(0, 2**40, 2**40), end=0)}, "impossible shape"),
        ({"a": entry(shape=(1,) * 65, end=4)}, "impossible shape"),
        ({"__metadata__": {"format": 1}, "a": entry()}, "__metadata__ is no object of strings"),
        ({"__metadata__": ["pt"], "a": entry()}, "__metadata__ is no object of strings"),
        ({"__metadata__": None, "a": entry()}, "__metadata__ is no object of strings"),
        ([], "it is a list, not an object"),
        (b'"text"', "it is a str, not an object"),
        (b"{nonsense", "header cannot be read"),
        (b'{"a": NaN}', "of whole numbers, not nan"),
        (b'{"a\xff": 1}', "can't decode byte 0xff"),
        (b'{"\\ud800": 1}', "surrogates not allowed"),
        (json.dumps({"a": entry()}).encode("utf-16"), "header cannot be read"),
        (
            b'{"a": ' + json.dumps(entry()).encode() + b', "a": ' + json.dumps(entry()).encode() + b"}",
            "names 'a' twice",
        ),
        (b'{"a": {"dtype": "F32", "dtype": "I32", "shape": [2], "data_offsets": [0, 8]}}', "names 'dtype' twice"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "header cannot be read"),
    ],
)
def test_headers_that_lie(tmp_path: Path, header: Any, message: str) -> None:
    path = written(tmp_path / "x.safetensors", header, bytes(8))
    with pytest.raises(CheckpointError, match=message) as caught:
        SafetensorsFile(path)
    assert str(path) in str(caught.value)
    assert "save" in str(caught.value)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("length", [0, 1, 11, 2**20, 100_000_001, 2**62, 2**63, 2**64 - 1])
def test_absurd_header_lengths(tmp_path: Path, length: int) -> None:
    path = written(tmp_path / "x.safetensors", b"{}", length=length)
    with pytest.raises(CheckpointError, match=f"has 10 bytes, its header claims {length}. Download or save it again"):
        SafetensorsFile(path)


@pytest.mark.parametrize("size", range(10))
def test_files_too_short_for_a_header(tmp_path: Path, size: int) -> None:
    (tmp_path / "x").write_bytes((2).to_bytes(8, "little")[:size].ljust(size, b"{"))
    with pytest.raises(CheckpointError, match="is not a whole safetensors file"):
        SafetensorsFile(tmp_path / "x")


def test_headers_that_would_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_json, "_MOST_MARKS", 1000)
    many = {f"t{i}": entry("U8", (0,), 0, 0) for i in range(200)}
    with pytest.raises(CheckpointError, match=r"it has 1\d\d\d lists, objects and commas, at most 1000 are read"):
        SafetensorsFile(written(tmp_path / "x", many))
    monkeypatch.setattr(safetensors_header, "LONGEST", 1000)
    with pytest.raises(CheckpointError, match=r"claims a header of \d+ bytes; at most 1000 are read"):
        SafetensorsFile(written(tmp_path / "x", many))


def test_json_files_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.json").write_text('{"a": 1}')
    assert strict_json.strict_json_file(tmp_path / "x.json") == {"a": 1}
    monkeypatch.setattr(strict_json, "LONGEST", 7)
    with pytest.raises(ValueError, match="it has 8 bytes, at most 7 are read"):
        strict_json.strict_json_file(tmp_path / "x.json")


def test_json_that_does_not_fit_is_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(strict_json.json, "loads", too_large)
    with pytest.raises(ValueError, match="its 2 bytes do not fit into memory"):
        strict_json.strict_json(b"{}")


def test_long_names_do_not_drown_the_message(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        SafetensorsFile(written(tmp_path / "x", {"n" * 100_000: entry(dtype="D" * 100_000, shape=(1,) * 60, end=9)}))
    assert len(str(caught.value)) < 2000
