"""One base model, one digest: in a file, in memory, and in every dtype that rounds to the same bfloat16."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ks_lottery.checkpoints.reader import open_checkpoint
from ks_lottery.errors import TicketError
from ks_lottery.stats.floats import bits_of
from ks_lottery.ticket import identity
from ks_lottery.ticket.identity import BaseIdentity, identify
from tests.tiny_models import tiny_llama

EMBEDDING = "model.embed_tokens.weight"
FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]

# What every release must compute of `weights`, or the tickets of older ones lose their base models.
WIDE = "4f3202af364d78e07b46553bd75a7de49c1a05dec9942e90bca9f463957591a7"
HALF = "17c87adc6e4349da0a3a425967deaa69359b54c1053b6ccefb8cb94a78f058b0"  # its smallest values are subnormal


def weights(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """More rows than are sampled, and values from 1e-10 to 1, of both signs."""
    numbers = torch.arange(300 * 40, dtype=torch.int64)
    values = ((numbers * 7919 % 2003).double() - 1001) / 1009 * 2.0 ** -(numbers % 23).double()
    matrix = values.reshape(300, 40).to(dtype)
    return {EMBEDDING: matrix, "model.norm.weight": matrix[7].clone()}


def stored(folder: Path, tensors: dict[str, torch.Tensor]) -> BaseIdentity:
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "tie_word_embeddings": False}))
    return identify(open_checkpoint(folder), tensors)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_the_digest_is_the_same_in_every_release(tmp_path: Path, dtype: torch.dtype) -> None:
    assert stored(tmp_path, weights(dtype)).digest == (HALF if dtype == torch.float16 else WIDE)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_a_folder_and_its_live_model_are_one_base(tmp_path: Path, dtype: torch.dtype, tied: bool) -> None:
    model = tiny_llama(dtype=dtype, tied=tied)
    model.save_pretrained(tmp_path)
    live, folder = open_checkpoint(model), open_checkpoint(tmp_path)
    assert identify(live, live.names()).digest == identify(folder, folder.names()).digest


def test_float32_and_its_rounded_copy_are_one_base_and_other_weights_another() -> None:
    model, rounded, other = tiny_llama(), tiny_llama(dtype=torch.bfloat16), tiny_llama()
    with torch.no_grad():
        other.get_parameter(EMBEDDING)[5, 3] += 0.1
    base, same, moved = (identify(open_checkpoint(one), [EMBEDDING]) for one in (model, rounded, other))
    base.require_same(same)
    with pytest.raises(TicketError, match="the same architecture and shapes, but other weights"):
        base.require_same(moved)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_rounding_is_torchs(dtype: torch.dtype, data: st.DataObject) -> None:
    width = torch.finfo(dtype).bits
    patterns = data.draw(st.lists(st.integers(-(2 ** (width - 1)), 2 ** (width - 1) - 1), min_size=1, max_size=40))
    values = torch.tensor(patterns, dtype=getattr(torch, f"int{width}")).view(dtype)
    expected = values.to(torch.bfloat16)
    rounded = torch.from_numpy(identity._bfloat16(bits_of(values)).copy()).view(torch.bfloat16)
    numbers = ~values.isnan()
    assert torch.equal(rounded[numbers].view(torch.int16), expected[numbers].view(torch.int16))
    assert rounded[~numbers].isnan().all()


def test_rounding_goes_to_even_on_a_tie_and_to_infinity_above_the_largest() -> None:
    patterns = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x7F7FFFFF, -0x7FFFFFFF - 1, 0x00008000], dtype=np.int64)
    bits = bits_of(patterns.astype(np.int32).view(np.float32))
    assert identity._bfloat16(bits).view(np.uint16).tolist() == [0x3F80, 0x3F82, 0x3F81, 0x7F80, 0x8000, 0x0000]


def test_long_rows_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_PIECE", 7)
    assert stored(tmp_path, weights(torch.float32)).digest == WIDE


def test_scalars_and_other_dtypes_have_an_identity(tmp_path: Path) -> None:
    odd = {"scale": torch.tensor(2.5), "codes": torch.arange(6, dtype=torch.int8).reshape(3, 2)}
    same = {"scale": torch.tensor(2.5, dtype=torch.bfloat16), "codes": odd["codes"].float()}
    assert stored(tmp_path, odd).digest == stored(tmp_path, same).digest
    assert stored(tmp_path, odd | {"scale": torch.tensor(2.0)}).digest != stored(tmp_path, odd).digest
