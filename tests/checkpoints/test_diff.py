"""What the stream finds is what the whole tensors say, whatever the pieces and the threads."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy.stats import ks_2samp

from ks_lottery.checkpoints import stream
from ks_lottery.checkpoints.diff import TensorDifference, compare_checkpoints
from ks_lottery.checkpoints.inventory import TensorPair
from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.errors import CheckpointError, OptionError, UnitError, UnknownNameError
from ks_lottery.finders.search import score_units
from ks_lottery.units.token_rows import TokenRows
from tests.fake_hub import FakeHub
from tests.tiny_models import tiny_llama

EMBEDDING = "model.embed_tokens.weight"
NORM = "model.norm.weight"


def compared(before: object, after: object, **options: object) -> dict[str, TensorDifference]:
    return {one.pair.name: one for one in compare_checkpoints(before, after, **options)}


def moved(model: torch.nn.Module, seed: int = 0, share: float = 0.5) -> torch.nn.Module:
    """A copy in which a share of the rows of every parameter moved."""
    copy = tiny_llama(dtype=next(model.parameters()).dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in copy.parameters():
            chosen = torch.rand(len(parameter), generator=generator) < share
            noise = torch.randn(parameter.shape, generator=generator) * 0.02
            parameter[chosen] += noise[chosen].to(parameter.dtype)
    return copy


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pair")
    tiny_llama().save_pretrained(folder / "before")
    moved(tiny_llama()).save_pretrained(folder / "after", max_shard_size="10KB")
    return folder / "before", folder / "after"


def height(x: np.ndarray, y: np.ndarray) -> int:
    """Largest difference of the counts up to any value."""
    places = np.union1d(x, y)
    counts = [np.searchsorted(np.sort(side), places, side="right") for side in (x, y)]
    return int(np.abs(counts[0] - counts[1]).max())


def check(one: TensorDifference, old: torch.Tensor, new: torch.Tensor) -> None:
    """Compare with numpy and scipy on the whole tensors."""
    changed = old.view(torch.uint8).reshape(old.numel(), -1) != new.view(torch.uint8).reshape(old.numel(), -1)
    values = changed.any(dim=1)
    x, y = (side.double().numpy().reshape(-1) for side in (old, new))
    rows = values.reshape(len(old) if old.dim() > 1 else 1, -1).any(dim=1)
    assert one.changed_values == int(values.sum())
    assert one.changed_share == one.changed_values / len(x)
    assert (one.changed_rows, one.pair.rows) == (int(rows.sum()), len(rows))
    assert one.h == height(x, y)
    assert one.statistic == one.h / len(x)
    assert one.shift == pytest.approx(np.linalg.norm(y - x), rel=1e-12)
    assert one.norm == pytest.approx(np.linalg.norm(x), rel=1e-12)
    assert one.relative_shift == pytest.approx(np.linalg.norm(y - x) / np.linalg.norm(x), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_every_number_is_that_of_the_whole_tensors(tmp_path: Path, dtype: torch.dtype) -> None:
    before = tiny_llama(dtype=dtype)
    after = moved(before)
    before.save_pretrained(tmp_path / "before", max_shard_size="20KB")
    after.save_pretrained(tmp_path / "after")
    found = compared(tmp_path / "before", tmp_path / "after", piece_bytes=500, jobs=2)
    states = before.state_dict(), after.state_dict()
    assert set(found) == set(states[0])
    assert sum(one.changed_values for one in found.values()) > 5000
    for name, one in found.items():
        old, new = (state[name] for state in states)
        check(one, old, new)
        assert one.statistic == pytest.approx(
            ks_2samp(old.reshape(-1).double(), new.reshape(-1).double(), method="asymp").statistic
        )
        assert one.units == ()


@pytest.mark.parametrize("sides", ["live-live", "live-folder", "folder-live"])
def test_live_models_and_folders_differ_alike(pair: tuple[Path, Path], sides: str) -> None:
    models = tiny_llama(), moved(tiny_llama())
    before, after = (
        model if kind == "live" else folder for kind, model, folder in zip(sides.split("-"), models, pair, strict=True)
    )
    assert compared(before, after) == compared(*pair)


def test_results_depend_on_neither_threads_nor_pieces(pair: tuple[Path, Path]) -> None:
    expected = list(compare_checkpoints(*pair, jobs=1))
    for jobs in (2, 5):
        assert list(compare_checkpoints(*pair, jobs=jobs)) == expected
    for piece_bytes in (1, 129, 5000):
        for one, other in zip(compare_checkpoints(*pair, piece_bytes=piece_bytes), expected, strict=True):
            assert (one.pair, one.changed_values, one.changed_rows, one.h) == (
                other.pair, other.changed_values, other.changed_rows, other.h
            )  # fmt: skip
            assert (one.shift, one.norm) == pytest.approx((other.shift, other.norm), rel=1e-14)


def test_rows_that_are_read_in_parts(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = compared(*pair)
    monkeypatch.setattr(stream, "_SPLIT_ROW_BYTES", 44)
    for name, one in compared(*pair).items():
        other = expected[name]
        assert (one.changed_values, one.changed_rows, one.h) == (other.changed_values, other.changed_rows, other.h)
        assert one.shift == pytest.approx(other.shift, rel=1e-14)
    units = compared(*pair, units="token_rows")[EMBEDDING].units[0]
    assert np.array_equal(units.heights, score_units(*pair)[0].score * 32)


def test_units_are_what_the_finder_scores(pair: tuple[Path, Path]) -> None:
    for options in ({}, {"piece_bytes": 300, "jobs": 3}):
        units = compared(*pair, units="token_rows", **options)[EMBEDDING].units
        (scores,) = score_units(*pair, finder="ks")
        assert [(one.granularity, one.group, one.values) for one in units] == [("token_rows", scores.group, 32)]
        assert np.array_equal(units[0].statistic, scores.score)
        assert np.array_equal(units[0].log_p, scores.log_p)
        assert np.array_equal(units[0].rows.changed, scores.changed)
        assert np.allclose(units[0].rows.shift, scores.columns["shift"], rtol=1e-14)
        assert np.allclose(units[0].rows.relative_shift, scores.columns["relative_shift"], rtol=1e-14)
    states = [load_file(path) for path in sorted(pair[1].glob("*.safetensors"))]
    after = next(state[EMBEDDING] for state in states if EMBEDDING in state).double().numpy()
    before = load_file(pair[0] / "model.safetensors")[EMBEDDING].double().numpy()
    brute = [round(ks_2samp(old, new, method="asymp").statistic * 32) for old, new in zip(before, after, strict=True)]
    assert units[0].heights.tolist() == brute


def test_units_of_both_ends(pair: tuple[Path, Path]) -> None:
    found = compared(*pair, units=TokenRows(ends="both"))
    assert {name: [one.group.name for one in found[name].units] for name in found if found[name].units} == {
        EMBEDDING: ["input"], "lm_head.weight": ["output"]
    }  # fmt: skip


def test_scope_and_progress(pair: tuple[Path, Path]) -> None:
    seen: list[int] = []
    found = compared(*pair, scope=["*.mlp.*"], progress=seen.append, piece_bytes=1000)
    assert len(found) == 6
    assert all(".mlp." in name for name in found)
    assert sum(seen) == 2 * sum(one.pair.num_bytes for one in found.values())
    assert len(seen) > 6


def folder_of(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(tiny_llama().config.to_dict()))
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return path


def test_whole_numbers_are_compared_byte_for_byte(tmp_path: Path) -> None:
    steps = torch.arange(6).reshape(2, 3)
    before = folder_of(tmp_path / "before", {"steps": steps, "same": torch.tensor([True, False])})
    after = folder_of(tmp_path / "after", {"steps": steps + 256 * (steps == 4), "same": torch.tensor([True, False])})
    found = compared(before, after)
    assert (found["steps"].changed_values, found["steps"].changed_rows, found["same"].changed_values) == (1, 1, 0)
    for one in found.values():
        assert (one.h, one.statistic, one.shift, one.norm, one.relative_shift) == (None,) * 5
    assert found["steps"].changed_share == 1 / 48


def test_empty_tiny_and_zero_tensors(tmp_path: Path) -> None:
    tensors = {
        "empty": torch.zeros(0, 4), "scalar": torch.tensor(2.0), "few": torch.tensor([1.0, 2.0, 3.0]),
        "zero": torch.zeros(4, 8), "still": torch.zeros(9), "signed": torch.zeros(3, 8), "thin": torch.ones(30, 1),
    }  # fmt: skip
    before = folder_of(tmp_path / "before", tensors)
    after = dict(tensors)
    after["scalar"] = torch.tensor(3.0)
    after["few"] = torch.tensor([1.0, 5.0, 3.0])
    after["zero"] = tensors["zero"] + torch.tensor([0.0, 1.0, 0.0, 0.0])[:, None]
    after["signed"] = -tensors["signed"]
    after["thin"] = torch.ones(30, 1).index_fill(0, torch.tensor([7]), 4.0)
    found = compared(before, folder_of(tmp_path / "after", after), piece_bytes=8)
    assert {name: (one.changed_values, one.changed_rows, one.h, one.relative_shift) for name, one in found.items()} == {
        "empty": (0, 0, 0, 0.0),
        "scalar": (1, 1, 1, 0.5),
        "few": (1, 1, 1, pytest.approx(3 / math.sqrt(14))),
        "zero": (8, 1, 8, None),
        "still": (0, 0, 0, 0.0),
        "signed": (24, 3, 0, 0.0),
        "thin": (1, 1, 1, pytest.approx(3 / math.sqrt(30))),
    }
    assert found["empty"].changed_share == found["empty"].statistic == 0.0
    assert found["zero"].statistic == 8 / 32


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_random_tensors_and_moves(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    shape = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 20)), label="shape")
    seed = data.draw(st.integers(0, 2**16), label="seed")
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16]), label="dtype")
    generator = torch.Generator().manual_seed(seed)
    old = torch.randint(-3, 4, shape, generator=generator).to(dtype)
    new = torch.where(torch.rand(shape, generator=generator) < 0.2, old + 1, old)
    folder = tmp_path_factory.mktemp("random")
    before, after = folder_of(folder / "before", {"x": old}), folder_of(folder / "after", {"x": new})
    piece_bytes = data.draw(st.integers(1, 200), label="piece_bytes")
    (one,) = compare_checkpoints(before, after, piece_bytes=piece_bytes)
    if (old == 0).all():
        assert one.norm == 0.0
    else:
        check(one, old, new)


@pytest.mark.parametrize(("side", "value"), [("before", math.nan), ("after", math.inf)])
@pytest.mark.parametrize(("name", "place", "row"), [(EMBEDDING, (60, 3), 60), (NORM, (5,), 0)])
def test_nan_and_infinity_are_named(
    tmp_path: Path, side: str, value: float, name: str, place: tuple[int, ...], row: int
) -> None:
    tensors = tiny_llama().state_dict()
    damaged = {key: tensor.clone() for key, tensor in tensors.items()}
    damaged[name][place] = value
    sides = {"before": tensors, "after": tensors} | {side: damaged}
    folders = [folder_of(tmp_path / which, content) for which, content in sides.items()]
    with pytest.raises(UnitError, match=rf"Row {row} of '{name}' {side} holds 1 NaN or infinite") as caught:
        list(compare_checkpoints(*folders, piece_bytes=1000))
    assert f"the first at position {place[-1]}" in str(caught.value)


def test_nan_in_a_part_of_a_row_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_SPLIT_ROW_BYTES", 40)
    values = torch.ones(2, 30)
    values[1, 25] = math.nan
    folder = folder_of(tmp_path, {"x": values})
    with pytest.raises(UnitError, match=r"Row 1 of 'x\[20:30\]' before holds 1 NaN .* the first at position 5"):
        list(compare_checkpoints(folder, folder))


def test_units_must_be_rows_that_can_be_compared(pair: tuple[Path, Path], tmp_path: Path) -> None:
    before, _ = pair

    def message(error: type[Exception], after: object, **options: object) -> str:
        with pytest.raises(error) as caught:
            compare_checkpoints(before, after, **options)
        return str(caught.value)

    assert "Units of 'layers' are not compared one by one: that works where each unit is one row of one" in message(
        UnitError, before, units="layers"
    )
    assert message(CheckpointError, tiny_llama(vocabulary=70), units="token_rows") == (
        f"Units of 'token_rows' lie in '{EMBEDDING}', which cannot be compared as floats: (64, 32) before, (70, 32) "
        "after; rows 0 to 63 are in both."
    )
    assert message(OptionError, before, units="token_rows", scope=["*mlp*"]) == (
        f"Units of 'token_rows' lie in '{EMBEDDING}', which the scope leaves out. Add it to the scope."
    )
    assert "Did you mean 'token_rows'?" in message(UnknownNameError, before, units="token_row")
    assert "scope 'nothing' matches none of 21 tensors" in message(OptionError, before, scope=["nothing"])


def test_units_need_eight_values(tmp_path: Path) -> None:
    tensors = {EMBEDDING: torch.ones(10, 4)}
    folder = folder_of(tmp_path, tensors)
    with pytest.raises(UnitError, match=rf"'{EMBEDDING}': the KS test .* needs at least 8 values per unit, got 4"):
        list(compare_checkpoints(folder, folder, units="token_rows"))
    assert compared(folder, folder)[EMBEDDING].h == 0


def test_an_iteration_that_is_left_early_closes_its_files(pair: tuple[Path, Path]) -> None:
    differences = compare_checkpoints(*pair, piece_bytes=64)
    first = next(differences)
    differences.close()
    assert isinstance(first, TensorDifference)
    assert list(differences) == []


def test_relative_shift_without_a_number() -> None:
    tensor = TensorPair("x", (2, 4), "float32", 32)
    assert TensorDifference(tensor, 1, 1, 1, 0.5, 0.0).relative_shift is None
    assert TensorDifference(tensor, 0, 0, 0, 0.0, 0.0).relative_shift == 0.0
    assert TensorDifference(tensor, 1, 1, 1, 0.5, 2.0).relative_shift == 0.25


_LIMITED = """
import resource, sys
from ks_lottery.checkpoints.diff import compare_checkpoints
tiny, before, after = sys.argv[1:]
list(compare_checkpoints(tiny, tiny))
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
data = int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1])
resource.setrlimit(resource.RLIMIT_DATA, ((data + 100 * 1024) * 1024,) * 2)
(one,) = compare_checkpoints(before, after, jobs=2)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) // 1024, one.changed_values, one.changed_rows, one.h)
"""


def sparse_folder(path: Path, shape: tuple[int, int], patch: Callable[[int], dict[int, bytes]]) -> Path:
    """A folder with one float32 matrix of zeros that takes next to no disk, patched at some bytes."""
    size = 4 * shape[0] * shape[1]
    header = json.dumps({EMBEDDING: {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with (path / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
        for place, content in patch(size).items():
            file.seek(8 + len(header) + place)
            file.write(content)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="limits and /proc of Linux")
def test_a_checkpoint_larger_than_the_memory_limit(pair: tuple[Path, Path], tmp_path: Path) -> None:
    one = np.float32(1.0).tobytes()
    shape = (2**16, 1024)
    before = sparse_folder(tmp_path / "before", shape, lambda size: {})
    after = sparse_folder(tmp_path / "after", shape, lambda size: {0: one, 8: one, size // 2: one, size - 4: one})
    command = [sys.executable, "-c", _LIMITED, *map(str, (pair[0], before, after))]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    megabytes, *found = map(int, result.stdout.split())
    assert found == [4, 3, 4]
    assert megabytes < 120


def test_a_hub_repository_and_a_folder(pair: tuple[Path, Path], fake_hub: FakeHub) -> None:
    fake_hub.add("tester/after", {path.name: path.read_bytes() for path in pair[1].iterdir()})
    assert compared(pair[0], "tester/after") == compared(*pair)


def test_open_checkpoints_are_accepted(pair: tuple[Path, Path]) -> None:
    before = open_checkpoint(pair[0])
    assert all(one.changed_values == 0 and one.h == 0 for one in compare_checkpoints(before, before))
