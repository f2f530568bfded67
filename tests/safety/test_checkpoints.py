"""A checkpoint from anywhere is refused by name of what is wrong, before memory is taken for what it claims."""

import json
import sys
import tracemalloc
from pathlib import Path

import pytest

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.checkpoints.safetensors_file import SafetensorsFile
from ks_lottery.errors import CheckpointError
from tests.safety.files import entry, safetensors_bytes

ZEROS = b"\0" * 8
CONFIG = {"model_type": "llama", "tie_word_embeddings": False}
HEADERS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it has 0 bytes"),
    "longer than the file": (safetensors_bytes({"x": entry("F32", [2], 0, 8)}, ZEROS, 2**40), f"claims {2**40}"),
    "longer than can be counted": (safetensors_bytes({}, ZEROS, 2**64 - 1), f"claims {2**64 - 1}"),
    "no JSON": (safetensors_bytes(b"{]", ZEROS), "its header cannot be read"),
    "no UTF-8": (safetensors_bytes(b'{"\xff": 1}', ZEROS), "codec can't decode byte 0xff"),
    "no object": (safetensors_bytes(b"[1]", ZEROS), "it is a list, not an object"),
    "a name twice": (
        safetensors_bytes(b'{"x":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"x":{}}', ZEROS),
        "it names 'x' twice",
    ),
    "nested too deeply": (safetensors_bytes(b'{"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}"), "nested too deeply"),
    "a list nested too deeply": (safetensors_bytes(b'{"a":' * 50_000 + b"1" + b"}" * 50_000), "nested too deeply"),
    "millions of tensors": (
        safetensors_bytes(b"{" + b",".join(b'"%x":{}' % i for i in range(2**21 + 9)) + b"}"),
        "lists, objects and commas, at most 4194304 are read",
    ),
    "a number of ten thousand digits": (safetensors_bytes(b'{"x":' + b"9" * 10_000 + b"}"), "cannot be read"),
    "an offset that is no number": (safetensors_bytes({"x": entry("U8", [8], "0", 8)}, ZEROS), "of whole numbers"),
    "an offset with a point": (safetensors_bytes({"x": entry("U8", [8], 0.0, 8)}, ZEROS), "of whole numbers"),
    "an offset that is no finite number": (
        safetensors_bytes({"x": entry("U8", [8], 0, float("inf"))}, ZEROS),
        "of whole numbers",
    ),
    "a size that is no number": (safetensors_bytes({"x": entry("U8", [float("nan")], 0, 8)}, ZEROS), "whole numbers"),
    "a negative offset": (safetensors_bytes({"x": entry("U8", [8], -8, 0)}, ZEROS), "of whole numbers"),
    "an offset beyond 64 bits": (safetensors_bytes({"x": entry("U8", [8], 0, 2**64 + 8)}, ZEROS), "of whole numbers"),
    "offsets the wrong way round": (safetensors_bytes({"x": entry("F4", [8], 8, 0)}, ZEROS), "byte 0 comes next"),
    "overlapping": (
        safetensors_bytes({"x": entry("U8", [8], 0, 8), "y": entry("U8", [4], 4, 8)}, ZEROS),
        "where byte 8 comes next",
    ),
    "a gap": (safetensors_bytes({"x": entry("U8", [4], 4, 8)}, ZEROS), "where byte 0 comes next"),
    "beyond the file": (safetensors_bytes({"x": entry("U8", [9], 0, 9)}, ZEROS), "which has only 8 bytes"),
    "a shape that overflows": (
        safetensors_bytes({"x": entry("F32", [2**32, 2**32 + 1], 0, 8)}, ZEROS),
        "has the impossible shape",
    ),
    "a shape that overflows to the right size": (
        safetensors_bytes({"x": entry("F32", [2**62, 2**62, 0], 0, 0)}),
        "has the impossible shape",
    ),
    "a shape of too many sizes": (safetensors_bytes({"x": entry("U8", [1] * 65, 0, 1)}, b"\0"), "impossible shape"),
    "other bytes than the shape has": (safetensors_bytes({"x": entry("F32", [4], 0, 8)}, ZEROS), "has shape (4,)"),
    "bytes behind the last tensor": (safetensors_bytes({"x": entry("U8", [4], 0, 4)}, ZEROS), "holds 4 bytes behind"),
    "metadata of numbers": (safetensors_bytes({"__metadata__": {"format": 1}}), "is no object of strings"),
    "an entry that is a long text": (safetensors_bytes({"x" * 9999: "y" * 9999}), "of whole numbers"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_bad_header_is_refused(case: str, tmp_path: Path) -> None:
    content, expected = HEADERS[case]
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            SafetensorsFile(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert expected in str(caught.value)
    assert len(str(caught.value)) < 2000
    assert peak < 2**20 + 4 * len(content)


def test_a_header_of_more_than_100_megabytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:  # a sparse file: it takes no room
        file.write((100_000_001).to_bytes(8, "little"))
        file.truncate(200_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="claims a header of 100000001 bytes; at most 100000000 are read"):
            SafetensorsFile(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_no_depth_near_the_limit_of_recursion_escapes(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    limit = sys.getrecursionlimit()
    for depth in range(limit - 150, limit + 10):
        path.write_bytes(safetensors_bytes(b'{"x":' + b"[" * depth + b"]" * depth + b"}"))
        with pytest.raises(CheckpointError, match="header cannot be read"):
            SafetensorsFile(path)


WEIGHT_MAPS: dict[str, tuple[object, str]] = {
    "upwards": ({"x": "../secret.safetensors"}, "which is no .safetensors file inside the folder"),
    "upwards inside": ({"x": "a/../../secret.safetensors"}, "inside the folder"),
    "absolute": ({"x": "/etc/secret.safetensors"}, "inside the folder"),
    "absolute in Windows": ({"x": "C:\\secret.safetensors"}, "inside the folder"),
    "a drive of Windows": ({"x": "C:secret.safetensors"}, "inside the folder"),
    "upwards in Windows": ({"x": "..\\secret.safetensors"}, "inside the folder"),
    "a share": ({"x": "\\\\host\\share\\secret.safetensors"}, "inside the folder"),
    "NUL": ({"x": "secret\0.safetensors"}, "inside the folder"),
    "another kind": ({"x": "pytorch_model.bin"}, "inside the folder"),
    "no name": ({"x": 1}, "inside the folder"),
    "a list": (["x"], "it has no object 'weight_map'"),
    "a name that is too long": ({"x": "a" * 5000 + ".safetensors"}, "There is no file"),
    "a missing file": ({"x": "model-2.safetensors"}, "There is no file"),
}


@pytest.mark.parametrize("case", WEIGHT_MAPS)
def test_an_index_leads_to_no_other_place(case: str, tmp_path: Path) -> None:
    weight_map, expected = WEIGHT_MAPS[case]
    secret = safetensors_bytes({"x": entry("F32", [2], 0, 8)}, ZEROS)
    (tmp_path / "secret.safetensors").write_bytes(secret)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder).shape("x")
    assert expected in str(caught.value)


CONFIGS: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"{", "cannot be read"),
    "no UTF-8": (b'{"model_type": "\xff"}', "can't decode"),
    "nested too deeply": (b"[" * 100_000, "nested too deeply"),
    "no model_type": (b"{}", "no object with a model_type"),
    "model_type of another type": (b'{"model_type": []}', "no object with a model_type"),
    "unknown model_type": (b'{"model_type": "x"}', "transformers cannot read"),
    "text_config with a list": (
        b'{"model_type": "llava", "text_config": {"model_type": ["llama"], "tie_word_embeddings": true}}',
        "transformers cannot read",
    ),
    "code": (b'{"model_type": "x", "auto_map": {"AutoConfig": "code.Config"}}', "transformers cannot read"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_bad_config_is_refused(case: str, tmp_path: Path) -> None:
    content, expected = CONFIGS[case]
    (tmp_path / "config.json").write_bytes(content)
    (tmp_path / "code.py").write_text(f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()")
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes({"x": entry("F32", [2], 0, 8)}, ZEROS))
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path).names()
    assert expected in str(caught.value)
    assert len(str(caught.value)) < 2000
    assert not (tmp_path / "ran").exists()
