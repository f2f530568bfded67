"""Partial transfer on disk gives what it gives in memory, and changes nothing but the ticket's bytes."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from ks_lottery.adapter.transfer import transfer_ticket
from ks_lottery.adapter.transfer_files import transfer_checkpoint
from ks_lottery.checkpoints.safetensors_file import SafetensorsFile
from ks_lottery.errors import AdapterError, CheckpointError, TicketError
from ks_lottery.ticket.ticket import Ticket
from tests.adapter.mixed_tickets import gpt2_groups, hand_drawn, llama_groups
from tests.adapter.tickets import make_ticket, tiny_gpt2
from tests.adapter.weight_tickets import weight_ticket
from tests.fake_hub import FakeHub
from tests.tiny_models import shifted, tiny_llama


def moved(model: nn.Module, scale: float = 0.01) -> nn.Module:
    """The model with every weight moved a little, in float32."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model.float()


def models(folder: Path, name: str, dtype: torch.dtype) -> tuple[Path, Path, Ticket]:
    """Folders of a model (sharded) and of a tuned one, and a ticket of rows, columns and single values."""
    build = tiny_gpt2 if name == "gpt2" else lambda: tiny_llama(tied=name == "tied llama")
    build().to(dtype).save_pretrained(folder / "base", max_shard_size="20KB")
    (folder / "base" / "README.md").write_text("the base model")
    (folder / "base" / "tokenizer.json").write_text("{}")
    moved(build()).save_pretrained(folder / "after")
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype="auto")
    ticket = hand_drawn(base, gpt2_groups() if name == "gpt2" else llama_groups(tied=name == "tied llama"))
    return folder / "base", folder / "after", ticket


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "tied llama", "gpt2"])
def test_it_is_the_transfer_in_memory_bit_for_bit(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    base, after, ticket = models(tmp_path, name, dtype)
    told: list[int] = []

    def progress(total: int):  # type: ignore[no-untyped-def]
        told.append(-total)
        return told.append

    assert transfer_checkpoint(base, ticket, after, tmp_path / "out", progress) == tmp_path / "out"
    assert sum(told) == 0
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    expected = dict(transfer_ticket(model, ticket, after).named_parameters())
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert {p.dtype for p in again.parameters()} == {dtype}
    for parameter, value in again.named_parameters():
        assert torch.equal(value, expected[parameter]), parameter
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in base.iterdir()} - {
        "README.md"
    }
    masks = ticket.masks()
    for path in (tmp_path / "out").glob("*.safetensors"):
        tensors, before = load_file(path), load_file(base / path.name)
        for tensor, value in tensors.items():
            untouched = ~masks[tensor] if tensor in masks else torch.ones_like(value, dtype=torch.bool)
            assert torch.equal(value[untouched], before[tensor][untouched])


def test_a_matrix_that_was_stored_twice_changes_twice(tmp_path: Path) -> None:
    tiny_llama(tied=True).save_pretrained(tmp_path / "base")
    file = tmp_path / "base" / "model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, file, {"format": "pt"})
    moved(tiny_llama(tied=True)).save_pretrained(tmp_path / "after")
    transfer_checkpoint(tmp_path / "base", make_ticket(tiny_llama(tied=True)), tmp_path / "after", tmp_path / "out")
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(written["lm_head.weight"], written["model.embed_tokens.weight"])
    assert not torch.equal(written["lm_head.weight"], tensors["model.embed_tokens.weight"])


def test_from_the_hub(fake_hub: FakeHub, tmp_path: Path) -> None:
    base, after, ticket = models(tmp_path, "llama", torch.float32)
    fake_hub.add("tester/base", base)
    fake_hub.add("tester/after", after)
    transfer_checkpoint("tester/base", ticket, "tester/after", tmp_path / "a")
    transfer_checkpoint(base, ticket, after, tmp_path / "b")
    for path in (tmp_path / "b").iterdir():
        assert (tmp_path / "a" / path.name).read_bytes() == path.read_bytes()


def test_what_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    base, after = tmp_path / "base", tmp_path / "after"
    tiny_llama().save_pretrained(base)
    shifted(tiny_llama(), [5]).save_pretrained(after)
    ticket = make_ticket(tiny_llama(), "input")
    tiny_llama(seed=1).save_pretrained(tmp_path / "other")
    tiny_llama(tied=True).save_pretrained(tmp_path / "tied")
    weights = weight_ticket(base, "neurons", lambda group: range(3))
    for arguments, error, said in (
        ((tmp_path / "other", ticket, after), TicketError, "the same architecture and shapes, but other weights"),
        ((base, ticket, tmp_path / "tied"), AdapterError, "ties its embeddings, unlike the model"),
        ((base, weights, after), AdapterError, "The ticket is a 'weight' ticket"),
        ((base, ticket, tmp_path / "absent"), CheckpointError, "is not a folder"),
    ):
        with pytest.raises(error, match=said):
            transfer_checkpoint(*arguments, tmp_path / "out")
    for folder in (base, after, tmp_path):
        with pytest.raises(AdapterError, match=r"The result would replace .* from which it is made"):
            transfer_checkpoint(base, ticket, after, folder)
    assert sorted(os.listdir(tmp_path)) == ["after", "base", "other", "tied"]


def test_quantised_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_llama().save_pretrained(tmp_path / "base")
    ticket = make_ticket(tiny_llama(), "input")
    file = tmp_path / "base" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].to(torch.float8_e4m3fn)
    save_file(tensors, file, {"format": "pt"})
    monkeypatch.setattr("ks_lottery.ticket.identity.BaseIdentity.require_same", lambda *_: None)
    with pytest.raises(
        AdapterError, match=r"'model.embed_tokens.weight' is float8_e4m3fn in the files of .* quantised"
    ):
        transfer_checkpoint(tmp_path / "base", ticket, tmp_path / "base", tmp_path / "out")
    assert SafetensorsFile(file).entries["model.embed_tokens.weight"].dtype == "float8_e4m3fn"
    assert not (tmp_path / "out").exists()
    assert np.isfinite(tensors["model.norm.weight"].numpy()).all()
