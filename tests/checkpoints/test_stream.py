"""Pieces cover every byte once, in file order; threads end when the caller does."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from ks_lottery.checkpoints import stream
from ks_lottery.checkpoints.inventory import TensorPair, pair_tensors
from ks_lottery.checkpoints.reader import FolderCheckpoint, ModelCheckpoint, open_checkpoint
from ks_lottery.checkpoints.stream import PairReader, Piece, in_order, pieces_of
from ks_lottery.errors import CheckpointError
from tests.tiny_models import tiny_llama

EMBEDDING = "model.embed_tokens.weight"


def pair(*shape: int, dtype: str = "float32") -> TensorPair:
    size = {"float32": 4, "bfloat16": 2, "bool": 1}[dtype]
    return TensorPair("x", shape, dtype, int(np.prod(shape, dtype=np.int64)) * size)


@given(
    shape=st.lists(st.integers(0, 9), max_size=3),
    dtype=st.sampled_from(["float32", "bfloat16", "bool"]),
    piece_bytes=st.integers(1, 200),
    cut_rows=st.booleans(),
)
def test_pieces_cover_every_byte_once(shape: list[int], dtype: str, piece_bytes: int, cut_rows: bool) -> None:
    tensor = pair(*shape, dtype=dtype)
    pieces = pieces_of(tensor, piece_bytes=piece_bytes, cut_rows=cut_rows)
    covered = [byte for piece in pieces for byte in range(piece.begin, piece.end)]
    assert covered == list(range(tensor.num_bytes))
    for piece in pieces:
        assert piece.begin % tensor.row_bytes == 0
        assert piece.whole_rows
        assert piece.name == "x"
        assert piece.end - piece.begin <= max(piece_bytes, tensor.row_bytes)


def test_long_rows_are_cut_where_they_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_SPLIT_ROW_BYTES", 40)
    tensor = pair(2, 25)
    pieces = pieces_of(tensor)
    assert [(piece.begin, piece.end) for piece in pieces] == [
        (0, 40), (40, 80), (80, 100), (100, 140), (140, 180), (180, 200)
    ]  # fmt: skip
    assert [piece.name for piece in pieces[2:4]] == ["x[20:25]", "x[0:10]"]
    assert [piece.first_row for piece in pieces] == [0, 0, 0, 1, 1, 1]
    assert [(piece.begin, piece.end) for piece in pieces_of(tensor, cut_rows=False)] == [(0, 200)]
    assert [(piece.begin, piece.end) for piece in pieces_of(tensor, cut_rows=False, piece_bytes=1)] == [
        (0, 100), (100, 200)
    ]  # fmt: skip


def test_vectors_scalars_and_other_dtypes_are_one_row() -> None:
    assert [(tensor.rows, tensor.row_bytes) for tensor in (pair(7), pair(), pair(7, 2, dtype="bool"))] == [
        (1, 28), (1, 4), (1, 14)
    ]  # fmt: skip
    assert (pair(7, 2, 3).rows, pair(7, 2, 3).row_bytes) == (7, 24)
    assert pieces_of(pair(0, 4)) == []


@pytest.fixture
def sides(tmp_path: Path) -> tuple[ModelCheckpoint, FolderCheckpoint]:
    model = tiny_llama()
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    live, stored = open_checkpoint(model), open_checkpoint(tmp_path)
    assert isinstance(live, ModelCheckpoint)
    assert isinstance(stored, FolderCheckpoint)
    return live, stored


def test_files_and_live_models_give_the_same_bytes(sides: tuple[ModelCheckpoint, FolderCheckpoint]) -> None:
    with PairReader(*sides) as reader:
        for tensor in pair_tensors(*sides).pairs:
            expected = sides[0].bits(tensor.name).array.reshape(-1).view(np.uint8)
            for piece_bytes in (1, 300, 10**6):
                got = []
                for piece in pieces_of(tensor, piece_bytes=piece_bytes):
                    reader.announce(piece)
                    live, stored = reader.read(piece)
                    assert np.array_equal(live, stored)
                    got.append(stored)
                assert np.array_equal(np.concatenate(got), expected)


def test_parts_of_rows_come_from_files_and_live_models(sides: tuple[ModelCheckpoint, FolderCheckpoint]) -> None:
    tensor = pair_tensors(*sides).pair(EMBEDDING)
    assert tensor is not None
    with PairReader(*sides) as reader:
        piece = Piece(tensor, 132, 244)
        reader.announce(piece)
        live, stored = reader.read(piece)
    assert live.tobytes() == stored.tobytes() == sides[0].bits(EMBEDDING).array.tobytes()[132:244]
    assert piece.name == f"{EMBEDDING}[1:29]"


def test_a_live_scalar_and_a_tensor_of_whole_numbers() -> None:
    model = tiny_llama()
    model.scale = torch.nn.Parameter(torch.tensor(3.0))
    model.steps = torch.nn.Parameter(torch.arange(6).reshape(2, 3), requires_grad=False)
    live = open_checkpoint(model)
    inventory = pair_tensors(live, live)
    with PairReader(live, live) as reader:
        for name, value in (("scale", np.float32(3.0)), ("steps", np.arange(6))):
            tensor = inventory.pair(name)
            assert tensor is not None
            (piece,) = pieces_of(tensor)
            reader.announce(piece)
            assert reader.read(piece)[0].tobytes() == value.tobytes()


def test_reader_closes_its_files(sides: tuple[ModelCheckpoint, FolderCheckpoint]) -> None:
    with PairReader(*sides) as reader:
        for tensor in pair_tensors(*sides).pairs:
            reader.announce(pieces_of(tensor)[0])
        opened = list(reader._files.values())
        assert len(opened) > 2
    for file in opened:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(file)


def test_a_file_that_shrinks_or_vanishes_is_named(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    folder = open_checkpoint(tmp_path)
    last = pair_tensors(folder, folder).pairs[-1]
    (piece,) = pieces_of(last)
    with PairReader(folder, folder) as reader:
        reader.announce(piece)
        with file.open("r+b") as handle:
            handle.truncate(100)
        with pytest.raises(CheckpointError, match=r"model.safetensors' became shorter while it was read. Wait until"):
            reader.read(piece)
    file.unlink()
    with (
        PairReader(folder, folder) as reader,
        pytest.raises(CheckpointError, match=r"model.safetensors' cannot be opened: No such file or directory"),
    ):
        reader.announce(piece)


def test_tensors_at_odd_places_are_read(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path)
    values = torch.arange(5.0)
    save_file({"a": torch.tensor([True]), "b": values}, tmp_path / "model.safetensors")
    header = (tmp_path / "model.safetensors").read_bytes()
    size = int.from_bytes(header[:8], "little")
    (tmp_path / "model.safetensors").write_bytes(
        (size + 1).to_bytes(8, "little") + header[8 : 8 + size] + b" " + header[8 + size :]
    )
    folder = open_checkpoint(tmp_path)
    tensor = pair_tensors(folder, folder).pair("b")
    assert tensor is not None
    (piece,) = pieces_of(tensor)
    with PairReader(folder, folder) as reader:
        reader.announce(piece)
        assert reader.read(piece)[1].tobytes() == values.numpy().tobytes()


@pytest.mark.parametrize("jobs", [1, 3])
def test_results_come_in_the_order_of_the_tasks(jobs: int) -> None:
    def slow_first(task: int) -> int:
        time.sleep(0.02 if task % 4 == 0 else 0)
        return task * task

    assert list(in_order(slow_first, range(40), jobs)) == [task * task for task in range(40)]


def test_tasks_are_taken_only_a_few_ahead() -> None:
    taken = []

    def tasks() -> Iterator[int]:
        for task in range(100):
            taken.append(task)
            yield task

    results = in_order(lambda task: task, tasks(), jobs=2, ahead=5)
    assert next(results) == 0
    assert len(taken) == 6
    results.close()
    assert len(taken) == 6


def test_an_error_in_a_thread_reaches_the_caller_and_ends_the_work() -> None:
    done = []

    def work(task: int) -> int:
        if task == 3:
            raise ValueError("task 3 failed")
        done.append(task)
        return task

    threads = threading.active_count()
    results = in_order(work, range(1000), jobs=2, ahead=4)
    with pytest.raises(ValueError, match="task 3 failed"):
        list(results)
    assert len(done) < 20
    assert threading.active_count() == threads


def test_an_error_while_tasks_are_made_reaches_the_caller_too() -> None:
    def tasks() -> Iterator[int]:
        yield 0
        raise CheckpointError("a shard is missing")

    threads = threading.active_count()
    with pytest.raises(CheckpointError, match="a shard is missing"):
        list(in_order(lambda task: task, tasks(), jobs=2))
    assert threading.active_count() == threads


def test_a_caller_that_stops_early_leaves_no_thread() -> None:
    threads = threading.active_count()
    results = in_order(lambda task: task, range(1000), jobs=3)
    assert [next(results), next(results)] == [0, 1]
    results.close()
    assert threading.active_count() == threads
