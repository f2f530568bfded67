"""Before and after in step: of one kind, of one dtype, or refused with both values."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ks_lottery.checkpoints import live_model
from ks_lottery.checkpoints.pair import paired_chunks
from ks_lottery.checkpoints.reader import Checkpoint, FolderCheckpoint, ModelCheckpoint, open_checkpoint
from ks_lottery.errors import CheckpointError
from ks_lottery.stats.floats import FloatBits, bits_of
from tests.tiny_models import shifted, tiny_llama

EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "base"
    tiny_llama().save_pretrained(path)
    return path


def test_stored_and_live_weights_on_the_cpu_are_bits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checkpoint.chunks, "__defaults__", (7 * 32 * 4,))
    after = shifted(tiny_llama(), [3])
    pieces = list(paired_chunks(open_checkpoint(folder), open_checkpoint(after), EMBEDDING))
    assert [start for start, _, _ in pieces] == list(range(0, 64, 7))
    assert all(isinstance(side, FloatBits) for _, *sides in pieces for side in sides)
    for side, model in ((1, tiny_llama()), (2, after)):
        whole = np.concatenate([piece[side].array for piece in pieces])
        assert np.array_equal(whole, bits_of(model.get_parameter(EMBEDDING)).array)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_lies_on_a_gpu_meets_a_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """Where a GPU would be, the test lets a live model say that it lies on one."""
    monkeypatch.setattr(live_model, "on_gpu", lambda values: True)
    model = tiny_llama(dtype=dtype)
    model.save_pretrained(tmp_path)
    sources = open_checkpoint(tmp_path), open_checkpoint(model)
    for before, after in (sources, sources[::-1], (sources[1], sources[1])):
        ((start, old, new),) = paired_chunks(before, after, EMBEDDING)
        assert start == 0
        assert isinstance(old, torch.Tensor)
        assert isinstance(new, torch.Tensor)
        assert torch.equal(old, model.get_parameter(EMBEDDING))
        assert torch.equal(new, model.get_parameter(EMBEDDING))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_model_on_a_gpu_stays_there(folder: Path) -> None:
    model = tiny_llama().cuda()
    for before, after in ((folder, model), (model, folder), (model, tiny_llama()), (model, model)):
        ((_, old, new),) = paired_chunks(open_checkpoint(before), open_checkpoint(after), EMBEDDING)
        assert isinstance(old, torch.Tensor)
        assert isinstance(new, torch.Tensor)
        assert old.device == new.device == model.device
        assert torch.equal(old, new)


def test_scalars_are_one_row(folder: Path) -> None:
    model = tiny_llama()
    model.register_parameter("scale", torch.nn.Parameter(torch.tensor(2.5)))
    ((start, old, new),) = paired_chunks(ModelCheckpoint(model), ModelCheckpoint(model), "scale")
    assert isinstance(old, FloatBits)
    assert isinstance(new, FloatBits)
    assert (start, old.values().tolist(), new.values().tolist()) == (0, [2.5], [2.5])


def test_before_and_after_must_be_comparable(folder: Path) -> None:
    base = open_checkpoint(folder)

    def compare(other: torch.nn.Module, parameter: str = EMBEDDING) -> None:
        list(paired_chunks(base, ModelCheckpoint(other), parameter))

    with pytest.raises(CheckpointError, match="The vocabulary went from 64 to 70 rows"):
        compare(tiny_llama(vocabulary=70))
    with pytest.raises(CheckpointError, match=r"is float32 in before .* and bfloat16 in after"):
        compare(tiny_llama(dtype=torch.bfloat16))
    with pytest.raises(CheckpointError, match="'lm_head.weight' is missing in after"):
        compare(tiny_llama(tied=True), "lm_head.weight")
    with pytest.raises(CheckpointError, match="must be the same architecture and size"):
        list(paired_chunks(_Reshaped(folder), base, EMBEDDING))


class _Reshaped(FolderCheckpoint):
    def shape(self, name: str) -> tuple[int, ...]:
        return (7, 5)
